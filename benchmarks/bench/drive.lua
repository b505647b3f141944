-- wrk's script: POSTs the bodies of a file in turn; writes the figures as JSON.
-- Set by load.py: BENCH_BODIES (a file of "length\n" + body, repeated), BENCH_TYPE, BENCH_OUT.

local calls = {}
local turn = 0

function init(args)
   local file = assert(io.open(os.getenv("BENCH_BODIES"), "rb"))
   local headers = { ["Content-Type"] = os.getenv("BENCH_TYPE"), ["Host"] = wrk.headers["Host"] }
   for length in function() return file:read("*l") end do
      calls[#calls + 1] = wrk.format("POST", nil, headers, file:read(tonumber(length)))
   end
   file:close()
end

function request()
   turn = turn % #calls + 1
   return calls[turn]
end

function done(summary, latency, requests)
   local errors = summary.errors
   local out = assert(io.open(os.getenv("BENCH_OUT"), "w"))
   out:write(string.format(
      '{"seconds": %.6f, "answers": %d, "p50_ms": %.3f, "p99_ms": %.3f, "non2xx": %d, '
      .. '"connect": %d, "read": %d, "write": %d, "timeout": %d}\n',
      summary.duration / 1e6, summary.requests, latency:percentile(50) / 1e3,
      latency:percentile(99) / 1e3, errors.status, errors.connect, errors.read, errors.write,
      errors.timeout))
   out:close()
end
