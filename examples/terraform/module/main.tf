# The extension for any function: the layer's ARN, the variables, and the permission that they need.
# How to use it: ../README.md

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7.0"
    }
  }
}

locals {
  # The secret is a password if there is a user, and a bearer token otherwise. What is set is its ARN: the extension reads
  # it while the function runs.
  settings = {
    PYROSCOPE_REMOTE_ADDRESS      = var.remote_address
    PYROSCOPE_BASIC_AUTH_USER     = var.basic_auth_user
    PYROSCOPE_BASIC_AUTH_PASSWORD = var.basic_auth_user == "" ? "" : var.secret_arn
    PYROSCOPE_AUTH_TOKEN          = var.basic_auth_user == "" ? var.secret_arn : ""
    PYROSCOPE_TENANT_ID           = var.tenant_id
    PYROSCOPE_LABELS              = length(var.labels) == 0 ? "" : jsonencode(var.labels)
    PYROSCOPE_FLUSH_MODE          = var.flush_mode
    PYROSCOPE_LOG_LEVEL           = var.log_level
  }
}

resource "aws_lambda_layer_version" "extension" {
  count = var.layer_arn == "" ? 1 : 0

  layer_name               = "${var.layer_name}-${var.architecture}"
  filename                 = var.layer_zip
  source_code_hash         = filebase64sha256(var.layer_zip)
  compatible_architectures = [var.architecture]
  license_info             = "Apache-2.0"
}

data "aws_iam_policy_document" "secret" {
  dynamic "statement" {
    for_each = compact([var.secret_arn])

    content {
      actions   = ["secretsmanager:GetSecretValue"]
      resources = [statement.value]
    }
  }
}
