# `shop` runs the site and the workers; `push` is whose token pushes and beats carry.

resource "google_service_account" "shop" {
  account_id = "shop"
}

resource "google_service_account" "push" {
  account_id = "push"
}

locals {
  pubsub_agent = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
  shop_account = "serviceAccount:${google_service_account.shop.email}"
}

resource "google_pubsub_topic_iam_member" "publishes" {
  for_each = local.queues
  topic    = google_pubsub_topic.queue[each.key].name
  role     = "roles/pubsub.publisher"
  member   = local.shop_account
}

resource "google_pubsub_subscription_iam_member" "pulls" {
  for_each     = { for name, queue in local.queues : name => queue if !queue.push }
  subscription = google_pubsub_subscription.queue[each.key].name
  role         = "roles/pubsub.subscriber"
  member       = local.shop_account
}

# Pub/Sub itself moves dead letters.
resource "google_pubsub_topic_iam_member" "buries" {
  for_each = local.queues
  topic    = google_pubsub_topic.dead_letters[each.key].name
  role     = "roles/pubsub.publisher"
  member   = local.pubsub_agent
}

resource "google_pubsub_subscription_iam_member" "buries" {
  for_each     = local.queues
  subscription = google_pubsub_subscription.queue[each.key].name
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub_agent
}

# Projects that have used Pub/Sub since before April 2021 need it; it does no harm elsewhere.
resource "google_service_account_iam_member" "signs_pushes" {
  service_account_id = google_service_account.push.name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = local.pubsub_agent
}

resource "google_project_iam_member" "database" {
  project = var.project
  role    = "roles/cloudsql.client"
  member  = local.shop_account
}

resource "google_secret_manager_secret_iam_member" "reads" {
  for_each  = local.secrets
  secret_id = each.value
  role      = "roles/secretmanager.secretAccessor"
  member    = local.shop_account
}
