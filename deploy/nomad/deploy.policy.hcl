# What the deploy role may do: make and stop jobs, too, any of this namespace, which Nomad cannot say
# more narrowly. Another reason for a namespace of the house alone:
#   nomad acl policy apply -namespace headrace -job headrace -group deploy headrace-deploy deploy.policy.hcl

namespace "headrace" {
  capabilities = ["read-job", "read-job-scaling", "scale-job", "submit-job"]
}
