variable "architecture" {
  description = "The function's processor"
  type        = string
  default     = "arm64"

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "It is arm64 or x86_64."
  }
}

variable "layer_arn" {
  description = "A published layer version for this processor; empty to publish layer_zip"
  type        = string
  default     = ""
}

variable "layer_zip" {
  description = "The zip of make layer or of a release, for this processor"
  type        = string
  default     = ""
}

variable "layer_name" {
  description = "The published layer's name, without the processor"
  type        = string
  default     = "pyroscope-lambda-extension"
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

variable "labels" {
  description = "Labels for every profile. A name in braces after a dollar sign is an environment variable"
  type        = map(string)
  default     = { version = "$${AWS_LAMBDA_FUNCTION_VERSION}" }
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
