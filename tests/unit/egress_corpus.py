"""URLs that must lead nowhere. PORT is that of a sink that listens on every address of this
machine; good.test and localhost resolve to it."""


def words(text):
    return text.split()


SCHEMES = [
    f"{scheme}://good.test:PORT/"
    for scheme in words("""
        http HTTP file ftp gopher dict ldap ws wss tftp sftp ssh jar netdoc unix phar php redis s3
        view-source javascript about httpss https+unix
    """)
]

NO_URLS = [
    "", " ", "https", "https:", "https:/", "https://", "https:///", "https:///127.0.0.1:PORT/",
    "https:127.0.0.1:PORT/", "https:/127.0.0.1:PORT/", "//127.0.0.1:PORT/", "127.0.0.1:PORT",
    "localhost:PORT", "/etc/passwd", "file:///etc/passwd", "file:/etc/passwd", "data:,x",
    "data:text/html;base64,AA==", "mailto:a@good.test", "javascript:alert(1)", "about:blank",
    "url:https://127.0.0.1:PORT/", "https:\\\\127.0.0.1:PORT\\", "https:/\\127.0.0.1:PORT/",
    " https://127.0.0.1:PORT/", "https://127.0.0.1:PORT/ ", "\thttps://127.0.0.1:PORT/",
    "ht\ntps://127.0.0.1:PORT/", "https://127.0.0.1\n:PORT/", "https://127.0.0.1:PORT/\r\nX: y",
    "https://good.test:PORT/\x00", "https://good.test\x00.127.0.0.1:PORT/", "https://good.test:PORT/é",
    "https://good.test:PORT/#@127.0.0.1", "https://good.test#@127.0.0.1:PORT/",
    "https://good.test\\@127.0.0.1:PORT/", "https://127.0.0.1:PORT\\@good.test/",
    "https://good.test:PORT/" + "a" * 2100, "https://?x", "https://:PORT/", "https://.:PORT/",
    'https://good.test:PORT/"', "https://good.test:PORT/<a>", "https://good.test:PORT/{a}",
    "https://good.test:PORT/`", "https://good.test:PORT/a|b", "https://good.test:PORT/^",
]  # fmt: skip

USERS = [
    f"https://{authority}/"
    for authority in words("""
        user@127.0.0.1:PORT user:pass@127.0.0.1:PORT @127.0.0.1:PORT :@127.0.0.1:PORT
        good.test@127.0.0.1:PORT good.test:443@127.0.0.1:PORT 127.0.0.1:PORT@good.test:PORT
        a@b@127.0.0.1:PORT user@good.test:PORT good.test%40127.0.0.1:PORT
        127.0.0.1%2523@good.test:PORT foo;@127.0.0.1:PORT [::1]@good.test:PORT
    """)
]

PORTS = [
    f"https://good.test:{port}/"
    for port in words("""
        22 25 80 6379 8080 9200 11211 65535 65536 99999 443443 0 0443 00443 -443 +443 0x1bb 443.0
        443a 443:443 \uff14\uff14\uff13 44%33 443%20
    """)
] + ["https://good.test:/", "https://good.test:4 43/"]

#: 127.0.0.1 and its friends, as they have been written to get past somebody.
SPELLINGS = [
    f"https://{host}:PORT/"
    for host in words("""
        2130706433 0x7f000001 0X7F000001 017700000001 0x7f.0.0.1 0x7f.0x0.0x0.0x1 0177.0.0.1
        0177.0.0.01 127.1 127.0.1 127.0.0.1. 127.0.0.01 127.000.000.001 127.0.0.1.1 127.0.0 127.
        127..1 0 0.0 1.1 00.0.0.0 0x0 0x 0x.0x 127.0.0.256 127.0.0.0x1 127.0.0.1%00 127.0.0.1%20
        %31%32%37.0.0.1 127%2e0%2e0%2e1 127\u30020\u30020\u30021 127\uff0e0\uff0e0\uff0e1
        \u2460\u2461\u2466.\u24ea.\u24ea.\u2460 \uff11\uff12\uff17.0.0.1 localho\u017ft
        3232235777 0xa9fea9fe 2852039166 0251.0376.0251.0376 0xa9.0xfe.0xa9.0xfe 169.254.43518
        425.510.425.510 7147006462 134744072 0x08080808 8.8.2056 good.0x7f good.1 a.0
        127.0.0.1,good.test 127.0.0.1;good.test (127.0.0.1) 127.0.0.1! * *.test -good.test
        good-.test good..test .good.test good.test. good.test:80#
    """)
] + [f"https://{host}:PORT/" for host in ("a" * 64 + ".test", ".".join(["a" * 60] * 5))]

ADDRESSES = words("""
    0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 127.0.0.1 127.0.0.2
    127.255.255.254 168.63.129.16 169.254.0.1 169.254.169.254 169.254.170.2 172.16.0.1
    172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1
    198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255
    :: ::1 ::2 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:7f00:1 ::ffff:0:127.0.0.1
    0:0:0:0:0:ffff:7f00:1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 64:ff9b::127.0.0.1
    64:ff9b::10.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::8.8.8.8 100::1 2001::1 2001:0:7f00:1::
    2001:2::1 2001:10::1 2001:db8::1 2002:7f00:1:: 2002:a00:1::1 2002:a9fe:a9fe::1
    2002:808:808::1 3fff::1 5f00::1 fc00::1 fd00::1 fd00:ec2::254 fe80::1 fec0::1 ff02::1
    ff0e::1 4000::1 2a00:1450::5efe:7f00:1 2a00:1450::200:5efe:a00:1
""")
LITERALS = [f"https://{f'[{a}]' if ':' in a else a}:PORT/" for a in ADDRESSES] + [
    "https://[fe80::1%25lo]:PORT/", "https://[fe80::1%lo]:PORT/", "https://[::1:PORT/", "https://::1:PORT/",
    "https://[]:PORT/", "https://[127.0.0.1]:PORT/", "https://[good.test]:PORT/", "https://[v1.::1]:PORT/",
    "https://[::1]x:PORT/", "https://[::1].good.test:PORT/", "https://[0:0:0:0:0:0:0:0:1]:PORT/",
    "https://[::ffff:0x7f.0.0.1]:PORT/", "https://[::ffff:127.1]:PORT/",
]  # fmt: skip

#: Names, by what they resolve to.
RESOLVED = [f"https://n{number}.test:PORT/" for number in range(len(ADDRESSES))]
MIXED = [f"https://m{number}.test:PORT/" for number in range(len(ADDRESSES))]
UNKNOWN = ["https://localhost:PORT/", "https://LOCALHOST:PORT/", "https://unknown.test:PORT/",
           "https://metadata.google.internal:PORT/", "https://broken.test:PORT/",
           "https://none.test:PORT/"]  # fmt: skip

CORPUS = SCHEMES + NO_URLS + USERS + PORTS + SPELLINGS + LITERALS + RESOLVED + MIXED + UNKNOWN
