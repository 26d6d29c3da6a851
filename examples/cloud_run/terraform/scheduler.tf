# The beat: schedules, retries and deferred calls of a deployment without workers need it. Where workers run it is the
# second one, and does no harm.

resource "google_cloud_scheduler_job" "beat" {
  name             = "shop-beat"
  region           = var.region
  schedule         = "* * * * *"
  time_zone        = "Etc/UTC"
  attempt_deadline = "60s"

  http_target {
    http_method = "POST"
    uri         = local.beat_url

    oidc_token {
      service_account_email = google_service_account.push.email
      audience              = local.beat_url
    }
  }
}
