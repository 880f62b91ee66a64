output "layer_arn" {
  description = "For the function's layers"
  value       = one(concat(aws_lambda_layer_version.extension[*].arn, compact([var.layer_arn])))
}

output "environment" {
  description = "For the function's variables; what is not set is left out"
  value       = { for name, value in local.settings : name => value if value != "" }
}

output "policy_json" {
  description = "For the function's role: to read that one secret; leave it out without a secret"
  value       = data.aws_iam_policy_document.secret.json
}
