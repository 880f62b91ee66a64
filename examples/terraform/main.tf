# Two functions, one in Python and one in Node.js, whose profiles the extension carries to Pyroscope.
# How to deploy it: README.md

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7.0"
    }
  }
}

provider "aws" {
  region = var.region
}

locals {
  dist  = "${path.module}/../../dist"
  layer = "${local.dist}/pyroscope-lambda-extension-${var.architecture}.zip"

  functions = {
    python = { runtime = "python3.13" }
    nodejs = { runtime = "nodejs24.x" }
  }

  # The secret is a password if there is a user, and a bearer token otherwise. What is set is its ARN: the extension reads
  # it while the function runs. What is not set is left out.
  settings = {
    PYROSCOPE_REMOTE_ADDRESS      = var.remote_address
    PYROSCOPE_BASIC_AUTH_USER     = var.basic_auth_user
    PYROSCOPE_BASIC_AUTH_PASSWORD = var.basic_auth_user == "" ? "" : var.secret_arn
    PYROSCOPE_AUTH_TOKEN          = var.basic_auth_user == "" ? var.secret_arn : ""
    PYROSCOPE_TENANT_ID           = var.tenant_id
    PYROSCOPE_FLUSH_MODE          = var.flush_mode
    PYROSCOPE_LOG_LEVEL           = var.log_level
  }
}

resource "aws_lambda_layer_version" "extension" {
  count = var.layer_arn == "" ? 1 : 0

  layer_name               = "pyroscope-lambda-extension"
  filename                 = local.layer
  source_code_hash         = filebase64sha256(local.layer)
  compatible_architectures = [var.architecture]
  license_info             = "Apache-2.0"
}

resource "aws_lambda_function" "example" {
  for_each = local.functions

  function_name    = "${var.name}-${each.key}"
  role             = aws_iam_role.example.arn
  runtime          = each.value.runtime
  handler          = "function.handler"
  filename         = "${local.dist}/examples/${each.key}.zip"
  source_code_hash = filebase64sha256("${local.dist}/examples/${each.key}.zip")
  architectures    = [var.architecture]
  memory_size      = 512
  timeout          = 30
  layers           = [one(concat(aws_lambda_layer_version.extension[*].arn, compact([var.layer_arn])))]

  environment {
    variables = merge(
      { for name, value in local.settings : name => value if value != "" },
      { PYROSCOPE_APPLICATION_NAME = "lambda.example.${each.key}" },
    )
  }

  logging_config {
    log_format = "Text"
    log_group  = aws_cloudwatch_log_group.example.name
  }
}

# Both functions' and the extension's lines.
resource "aws_cloudwatch_log_group" "example" {
  name              = "/${var.name}"
  retention_in_days = 7
}

resource "aws_iam_role" "example" {
  name               = var.name
  assume_role_policy = data.aws_iam_policy_document.lambda.json
}

resource "aws_iam_role_policy" "example" {
  name   = "write-logs-read-secret"
  role   = aws_iam_role.example.id
  policy = data.aws_iam_policy_document.example.json
}

data "aws_iam_policy_document" "lambda" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

# What a function needs to write its log, and the extension to read that one secret; nothing else.
data "aws_iam_policy_document" "example" {
  statement {
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.example.arn}:*"]
  }

  dynamic "statement" {
    for_each = compact([var.secret_arn])

    content {
      actions   = ["secretsmanager:GetSecretValue"]
      resources = [statement.value]
    }
  }
}
