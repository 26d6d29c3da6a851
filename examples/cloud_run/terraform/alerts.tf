# What Pub/Sub and the service show from outside. The alerts that look at the rows need the metrics endpoint:
# examples/monitoring/alerts.yml.

resource "google_monitoring_alert_policy" "backlog" {
  for_each              = local.queues
  display_name          = "i3tasks: messages of ${each.key} wait"
  combiner              = "OR"
  notification_channels = var.alert_channels

  conditions {
    display_name = "The oldest message is not acknowledged for five minutes"

    condition_threshold {
      filter = join(" AND ", [
        "resource.type = \"pubsub_subscription\"",
        "resource.labels.subscription_id = \"${google_pubsub_subscription.queue[each.key].name}\"",
        "metric.type = \"pubsub.googleapis.com/subscription/oldest_unacked_message_age\"",
      ])
      comparison      = "COMPARISON_GT"
      threshold_value = 300
      duration        = "120s"

      aggregations {
        alignment_period   = "60s"
        per_series_aligner = "ALIGN_MAX"
      }
    }
  }
}

resource "google_monitoring_alert_policy" "dead_letters" {
  for_each              = local.queues
  display_name          = "i3tasks: dead letters of ${each.key}"
  combiner              = "OR"
  notification_channels = var.alert_channels

  conditions {
    display_name = "A message could not be read"

    condition_threshold {
      filter = join(" AND ", [
        "resource.type = \"pubsub_subscription\"",
        "resource.labels.subscription_id = \"${google_pubsub_subscription.dead_letters[each.key].name}\"",
        "metric.type = \"pubsub.googleapis.com/subscription/num_undelivered_messages\"",
      ])
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "0s"

      aggregations {
        alignment_period   = "60s"
        per_series_aligner = "ALIGN_MAX"
      }
    }
  }
}

# 401: the token is missing or bad; 403: another account; 503: certificates or the database are not to be had.
resource "google_monitoring_alert_policy" "refused_pushes" {
  display_name          = "i3tasks: pushes are refused"
  combiner              = "OR"
  notification_channels = var.alert_channels

  conditions {
    display_name = "More than ten refused pushes in five minutes"

    condition_threshold {
      filter = join(" AND ", [
        "resource.type = \"pubsub_subscription\"",
        "metric.type = \"pubsub.googleapis.com/subscription/push_request_count\"",
        "metric.labels.response_class != \"ack\"",
      ])
      comparison      = "COMPARISON_GT"
      threshold_value = 10
      duration        = "0s"

      aggregations {
        alignment_period     = "300s"
        per_series_aligner   = "ALIGN_DELTA"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }
}
