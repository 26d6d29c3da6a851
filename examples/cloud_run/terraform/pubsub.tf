# What `i3tasks ensure-pubsub` would make, with the same names and settings: `i3tasks ensure-pubsub --dry-run` says
# nothing is to be done.

resource "google_pubsub_topic" "queue" {
  for_each = local.queues
  name     = "${var.namespace}.${each.key}"
}

resource "google_pubsub_topic" "dead_letters" {
  for_each = local.queues
  name     = "${var.namespace}.${each.key}.${each.value.subscription}.dead-letter"
}

resource "google_pubsub_subscription" "queue" {
  for_each = local.queues
  name     = "${var.namespace}.${each.key}.${each.value.subscription}"
  topic    = google_pubsub_topic.queue[each.key].id

  ack_deadline_seconds       = 60
  message_retention_duration = "604800s"

  expiration_policy {
    ttl = "" # never
  }

  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letters[each.key].id
    max_delivery_attempts = 20
  }

  dynamic "push_config" {
    for_each = each.value.push ? [local.push_url] : []
    content {
      push_endpoint = push_config.value
      oidc_token {
        service_account_email = google_service_account.push.email
        audience              = push_config.value
      }
    }
  }
}

# They keep what could not be read, so that people can look at it.
resource "google_pubsub_subscription" "dead_letters" {
  for_each = local.queues
  name     = google_pubsub_topic.dead_letters[each.key].name
  topic    = google_pubsub_topic.dead_letters[each.key].id

  ack_deadline_seconds       = 60
  message_retention_duration = "2678400s"

  expiration_policy {
    ttl = ""
  }
}
