output "functions" {
  value = { for language, function in aws_lambda_function.example : language => function.function_name }
}

output "log_group" {
  value = aws_cloudwatch_log_group.example.name
}
