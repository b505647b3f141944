# What the autoscaler may do, and nothing else:
#   nomad acl policy apply -namespace default -job headrace -group autoscale headrace-scale scale.policy.hcl

namespace "default" {
  capabilities = ["read-job", "read-job-scaling", "scale-job"]
}
