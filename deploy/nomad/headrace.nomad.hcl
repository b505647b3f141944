# The roles as one job, and a group for each model, named like it. Of a version from the registry
# deploy makes a job of its own when its rollout begins, a copy of its model's group: wine-cultivar@3
# is headrace-wine-cultivar-3. Running this file again does not touch it (docs/deploy.md).
#
#   nomad namespace apply headrace
#   nomad job run -preserve-counts -var image=registry.internal/headrace:0.1.0 headrace.nomad.hcl
#
# Without -preserve-counts a run sets the counts back to those below, whatever the autoscaler asked
# for. NATS, PostgreSQL, Redis, MLflow and the object store run elsewhere; where is said in the
# variables. The clients' `max_kill_timeout` (30 s unless set) bounds every kill_timeout: set it to
# "120s".

variable "image" {
  type        = string
  description = "The image of deploy/Containerfile, with the application in it."
}

variable "datacenters" {
  type    = list(string)
  default = ["dc1"]
}

variable "namespace" {
  type        = string
  description = "Of this house alone: every job in it reads the house's secrets."
  default     = "headrace"
}

variable "nomad" {
  type        = string
  description = "host:port of the Nomad API, as tasks reach it."
  default     = "nomad.service.consul:4646"
}

variable "broker_url" {
  type    = string
  default = "nats://nats-1.internal:4222,nats-2.internal:4222,nats-3.internal:4222?replicas=3"
}

variable "cache_url" {
  type    = string
  default = "redis://redis.internal:6379"
}

variable "objects_url" {
  type        = string
  description = "The inputs and results of stored jobs."
  default     = "s3://headrace/objects?endpoint=https://objects.internal:9000"
}

variable "transit_url" {
  type        = string
  description = "The large bodies of sync calls, while they run."
  default     = "s3://headrace/transit?endpoint=https://objects.internal:9000"
}

variable "registry_url" {
  type    = string
  default = "mlflow://mlflow.internal:5000"
}

variable "gateway_port" {
  type    = number
  default = 8100
}

job "headrace" {
  namespace   = var.namespace
  datacenters = var.datacenters
  type        = "service"

  # One after the other, each when the one before it is well. The autoscaler waits meanwhile: Nomad
  # scales no group whose deployment is under way.
  update {
    max_parallel      = 1
    health_check      = "checks"
    min_healthy_time  = "10s"
    healthy_deadline  = "5m"
    progress_deadline = "10m"
    auto_revert       = true
  }

  group "gateway" {
    count = 2

    # The service is gone from the catalogue so long before SIGTERM is sent.
    shutdown_delay = "5s"

    constraint {
      operator = "distinct_hosts"
      value    = "true"
    }

    network {
      port "http" {
        static = var.gateway_port
      }
    }

    service {
      name     = "headrace-gateway"
      port     = "http"
      provider = "nomad"

      check {
        type     = "http"
        path     = "/health/ready"
        interval = "5s"
        timeout  = "2s"
      }
    }

    task "gateway" {
      driver       = "docker"
      kill_signal  = "SIGTERM"
      kill_timeout = "60s"

      config {
        image        = var.image
        network_mode = "host"
        init         = true
        args         = ["gateway", "-f", "/app/headrace.toml"]
      }

      env {
        HEADRACE_GATEWAY__LISTEN         = "0.0.0.0:${NOMAD_PORT_http}"
        HEADRACE_GATEWAY__DRAIN_NOTICE_S = "5"
        HEADRACE_BROKER__URL             = var.broker_url
        HEADRACE_CACHE__URL              = var.cache_url
        HEADRACE_OBJECTS__URL            = var.objects_url
        HEADRACE_OBJECTS__TRANSIT        = var.transit_url
        HEADRACE_REGISTRY__URL           = var.registry_url
      }

      # HEADRACE_DATABASE__URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY:
      #   nomad var put -namespace headrace nomad/jobs HEADRACE_DATABASE__URL=postgresql://... ...
      # Not under the name of this job: those of versions would not see them there.
      template {
        destination = "secrets/headrace.env"
        env         = true
        data        = <<-EOF
          {{ with nomadVar "nomad/jobs" }}{{ range .Tuples }}
          {{ .K }}="{{ .V }}"
          {{ end }}{{ end }}
        EOF
      }

      resources {
        cpu    = 1000
        memory = 512
      }
    }
  }

  group "clerk" {
    count = 2

    constraint {
      operator = "distinct_hosts"
      value    = "true"
    }

    update {
      health_check = "task_states"
    }

    task "clerk" {
      driver       = "docker"
      kill_signal  = "SIGTERM"
      kill_timeout = "30s"

      config {
        image        = var.image
        network_mode = "host"
        init         = true
        args         = ["clerk", "-f", "/app/headrace.toml"]
      }

      env {
        HEADRACE_BROKER__URL      = var.broker_url
        HEADRACE_OBJECTS__URL     = var.objects_url
        HEADRACE_OBJECTS__TRANSIT = var.transit_url
        HEADRACE_REGISTRY__URL    = var.registry_url
      }

      template {
        destination = "secrets/headrace.env"
        env         = true
        data        = <<-EOF
          {{ with nomadVar "nomad/jobs" }}{{ range .Tuples }}
          {{ .K }}="{{ .V }}"
          {{ end }}{{ end }}
        EOF
      }

      resources {
        cpu    = 200
        memory = 256
      }
    }
  }

  group "autoscale" {
    count = 2

    constraint {
      operator = "distinct_hosts"
      value    = "true"
    }

    update {
      health_check = "task_states"
    }

    task "autoscale" {
      driver       = "docker"
      kill_signal  = "SIGTERM"
      kill_timeout = "30s"

      # Who it is for Nomad: secrets/nomad_token. What that may do is in scale.policy.hcl.
      identity {
        file = true
      }

      config {
        image        = var.image
        network_mode = "host"
        init         = true
        args         = ["autoscale", "run", "-f", "/app/headrace.toml"]
      }

      env {
        HEADRACE_AUTOSCALE__MODE          = "act"
        HEADRACE_ORCHESTRATOR__URL        = "nomad://${var.nomad}/headrace?namespace=${var.namespace}"
        HEADRACE_ORCHESTRATOR__TOKEN_FILE = "${NOMAD_SECRETS_DIR}/nomad_token"
        HEADRACE_BROKER__URL              = var.broker_url
        HEADRACE_OBJECTS__URL             = var.objects_url
        HEADRACE_OBJECTS__TRANSIT         = var.transit_url
        HEADRACE_REGISTRY__URL            = var.registry_url
      }

      template {
        destination = "secrets/headrace.env"
        env         = true
        data        = <<-EOF
          {{ with nomadVar "nomad/jobs" }}{{ range .Tuples }}
          {{ .K }}="{{ .V }}"
          {{ end }}{{ end }}
        EOF
      }

      resources {
        cpu    = 200
        memory = 512
      }
    }
  }

  group "deploy" {
    count = 2

    constraint {
      operator = "distinct_hosts"
      value    = "true"
    }

    update {
      health_check = "task_states"
    }

    task "deploy" {
      driver       = "docker"
      kill_signal  = "SIGTERM"
      kill_timeout = "30s"

      # Who it is for Nomad: secrets/nomad_token. What that may do is in deploy.policy.hcl.
      identity {
        file = true
      }

      config {
        image        = var.image
        network_mode = "host"
        init         = true
        args         = ["deploy", "run", "-f", "/app/headrace.toml"]
      }

      # The mode as the autoscaler has it: it says how many workers a version begins with.
      env {
        HEADRACE_AUTOSCALE__MODE          = "act"
        HEADRACE_ORCHESTRATOR__URL        = "nomad://${var.nomad}/headrace?namespace=${var.namespace}"
        HEADRACE_ORCHESTRATOR__TOKEN_FILE = "${NOMAD_SECRETS_DIR}/nomad_token"
        HEADRACE_BROKER__URL              = var.broker_url
        HEADRACE_OBJECTS__URL             = var.objects_url
        HEADRACE_OBJECTS__TRANSIT         = var.transit_url
        HEADRACE_REGISTRY__URL            = var.registry_url
      }

      template {
        destination = "secrets/headrace.env"
        env         = true
        data        = <<-EOF
          {{ with nomadVar "nomad/jobs" }}{{ range .Tuples }}
          {{ .K }}="{{ .V }}"
          {{ end }}{{ end }}
        EOF
      }

      resources {
        cpu    = 200
        memory = 256
      }
    }
  }

  # One: the window that it judges is in its memory.
  group "monitor" {
    count = 1

    update {
      health_check = "task_states"
    }

    task "monitor" {
      driver       = "docker"
      kill_signal  = "SIGTERM"
      kill_timeout = "30s"

      config {
        image        = var.image
        network_mode = "host"
        init         = true
        args         = ["monitor", "run", "-f", "/app/headrace.toml"]
      }

      env {
        HEADRACE_BROKER__URL      = var.broker_url
        HEADRACE_OBJECTS__URL     = var.objects_url
        HEADRACE_OBJECTS__TRANSIT = var.transit_url
        HEADRACE_REGISTRY__URL    = var.registry_url
      }

      template {
        destination = "secrets/headrace.env"
        env         = true
        data        = <<-EOF
          {{ with nomadVar "nomad/jobs" }}{{ range .Tuples }}
          {{ .K }}="{{ .V }}"
          {{ end }}{{ end }}
        EOF
      }

      resources {
        cpu    = 200
        memory = 512
      }
    }
  }

  # One: it runs one pipeline at a time. What the finished steps of a run have left moves with it to
  # the next machine, as far as Nomad can; with that gone a run that was stopped cannot go on.
  group "retrain" {
    count = 1

    update {
      health_check = "task_states"
    }

    ephemeral_disk {
      sticky  = true
      migrate = true
      size    = 20000
    }

    task "retrain" {
      driver       = "docker"
      kill_signal  = "SIGTERM"
      kill_timeout = "30s"

      config {
        image        = var.image
        network_mode = "host"
        init         = true
        args         = ["retrain", "run", "-f", "/app/headrace.toml"]
      }

      env {
        HEADRACE_HOUSE__STATE     = "${NOMAD_ALLOC_DIR}/data"
        HEADRACE_BROKER__URL      = var.broker_url
        HEADRACE_OBJECTS__URL     = var.objects_url
        HEADRACE_OBJECTS__TRANSIT = var.transit_url
        HEADRACE_REGISTRY__URL    = var.registry_url
      }

      template {
        destination = "secrets/headrace.env"
        env         = true
        data        = <<-EOF
          {{ with nomadVar "nomad/jobs" }}{{ range .Tuples }}
          {{ .K }}="{{ .V }}"
          {{ end }}{{ end }}
        EOF
      }

      resources {
        cpu    = 1000
        memory = 4096
      }
    }
  }

  # The workers of one model. For another model: this group again, under its name. `--model NAME` in
  # its arguments is what a version's job has another name in.
  group "wine-cultivar" {
    count = 2

    # `max` as in the policy of the model (headrace.toml): Nomad refuses a count outside. `min`, too,
    # but for a model with `deploy`, whose files here have no worker left once a version serves.
    scaling {
      enabled = true
      min     = 0
      max     = 8
    }

    spread {
      attribute = "${node.unique.id}"
    }

    network {
      port "metrics" {}
    }

    service {
      name     = "headrace-worker-wine-cultivar"
      port     = "metrics"
      provider = "nomad"

      check {
        type     = "http"
        path     = "/health/ready"
        interval = "5s"
        timeout  = "2s"
      }
    }

    task "worker" {
      driver       = "docker"
      kill_signal  = "SIGTERM"
      kill_timeout = "120s"

      # For a GPU: a `device "nvidia/gpu"` block in resources, count 1, and `slots` in headrace.toml.
      # Nomad lends a GPU to one task: several model processes share it as slots of one worker.
      config {
        image        = var.image
        network_mode = "host"
        init         = true
        args = [
          "worker", "-f", "/app/headrace.toml", "--model", "wine-cultivar",
          "--metrics", "0.0.0.0:${NOMAD_PORT_metrics}",
        ]
      }

      env {
        HEADRACE_BROKER__URL      = var.broker_url
        HEADRACE_OBJECTS__URL     = var.objects_url
        HEADRACE_OBJECTS__TRANSIT = var.transit_url
        HEADRACE_REGISTRY__URL    = var.registry_url
      }

      template {
        destination = "secrets/headrace.env"
        env         = true
        data        = <<-EOF
          {{ with nomadVar "nomad/jobs" }}{{ range .Tuples }}
          {{ .K }}="{{ .V }}"
          {{ end }}{{ end }}
        EOF
      }

      resources {
        cpu    = 2000
        memory = 1024
      }
    }
  }
}
