# What the autoscaler may do, and nothing else:
#   nomad acl policy apply -namespace headrace -job headrace -group autoscale headrace-scale scale.policy.hcl

namespace "headrace" {
  capabilities = ["read-job", "read-job-scaling", "scale-job"]
}
