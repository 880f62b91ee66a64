# Two functions, one in Python and one in Node.js, whose profiles the extension carries to Pyroscope.
# How to deploy it: README.md

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.19, < 7.0" # the first that takes nodejs24.x
    }
  }
}

provider "aws" {
  region = var.region
}

locals {
  dist = "${path.module}/../../dist"

  functions = {
    python = { runtime = "python3.13" }
    nodejs = { runtime = "nodejs24.x" }
  }
}

# The extension: its layer, its variables, and the permission to read the secret.
module "pyroscope" {
  source = "./module"

  architecture    = var.architecture
  layer_arn       = var.layer_arn
  layer_zip       = "${local.dist}/pyroscope-lambda-extension-${var.architecture}.zip"
  remote_address  = var.remote_address
  basic_auth_user = var.basic_auth_user
  secret_arn      = var.secret_arn
  tenant_id       = var.tenant_id
  flush_mode      = var.flush_mode
  log_level       = var.log_level
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
  layers           = [module.pyroscope.layer_arn]

  environment {
    variables = merge(module.pyroscope.environment, {
      PYROSCOPE_APPLICATION_NAME = "lambda.example.${each.key}"
    })
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
  source_policy_documents = [module.pyroscope.policy_json]

  statement {
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.example.arn}:*"]
  }
}
