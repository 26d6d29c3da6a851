output "service_url" {
  value = google_cloud_run_v2_service.shop.uri
}

output "subscriptions" {
  value = { for name, subscription in google_pubsub_subscription.queue : name => subscription.name }
}
