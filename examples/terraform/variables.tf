variable "region" {
  type    = string
  default = "eu-west-1"
}

variable "name" {
  description = "Of the role and the log group, and what the functions' names begin with"
  type        = string
  default     = "pyroscope-example"
}

variable "architecture" {
  type    = string
  default = "arm64"

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "It is arm64 or x86_64."
  }
}

variable "layer_arn" {
  description = "A published layer version for this processor; empty to publish the one in dist/"
  type        = string
  default     = ""
}

variable "remote_address" {
  description = "The Pyroscope server, https://..."
  type        = string

  validation {
    condition     = can(regex("^https?://.+", var.remote_address))
    error_message = "It is an http or https URL."
  }
}

variable "basic_auth_user" {
  description = "Grafana Cloud's number for Pyroscope; empty if the secret is a bearer token"
  type        = string
  default     = ""
}

variable "secret_arn" {
  description = "The ARN of the secret that is the password or the token; empty if the server wants none"
  type        = string
  default     = ""
}

variable "tenant_id" {
  type    = string
  default = ""
}

variable "flush_mode" {
  description = "When Lambda may freeze the sandbox after an invocation; empty to leave it to the extension, which takes none"
  type        = string
  default     = ""

  validation {
    condition     = contains(["", "none", "invoke", "end"], var.flush_mode)
    error_message = "It is none, invoke or end, or empty."
  }
}

variable "log_level" {
  type    = string
  default = "info"

  validation {
    condition     = contains(["error", "warn", "info", "debug", "trace"], var.log_level)
    error_message = "It is error, warn, info, debug or trace."
  }
}
