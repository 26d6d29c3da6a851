resource "google_cloud_run_v2_service" "shop" {
  name     = "shop"
  location = var.region

  template {
    service_account                  = google_service_account.shop.email
    timeout                          = "600s" # not less than the deadline of the push subscription
    max_instance_request_concurrency = 80

    scaling {
      max_instance_count = 10
    }

    volumes {
      name = "cloudsql"
      cloud_sql_instance {
        instances = [var.database_instance]
      }
    }

    containers {
      image = var.image

      ports {
        container_port = 8080
      }

      startup_probe {
        period_seconds    = 2
        failure_threshold = 30
        http_get {
          path = "/ready/"
        }
      }

      volume_mounts {
        name       = "cloudsql"
        mount_path = "/cloudsql"
      }

      dynamic "env" {
        for_each = local.container_env
        content {
          name  = env.value.name
          value = env.value.value
          dynamic "value_source" {
            for_each = env.value.secret[*] # none where there is no secret
            content {
              secret_key_ref {
                secret  = value_source.value
                version = "latest"
              }
            }
          }
        }
      }
    }
  }
}

# The site is public; i3tasks verifies pushes and beats itself. A service that requires authentication gives
# roles/run.invoker to the account `push` instead, and sets cloud_run_verifies=True.
resource "google_cloud_run_v2_service_iam_member" "public" {
  name     = google_cloud_run_v2_service.shop.name
  location = var.region
  role     = "roles/run.invoker"
  member   = "allUsers"
}

resource "google_cloud_run_v2_worker_pool" "worker" {
  name     = "shop-worker"
  location = var.region

  scaling {
    manual_instance_count = var.workers
  }

  template {
    service_account = google_service_account.shop.email

    volumes {
      name = "cloudsql"
      cloud_sql_instance {
        instances = [var.database_instance]
      }
    }

    containers {
      image   = var.image
      command = ["i3tasks"]
      args    = ["run-worker", "--concurrency=100"]

      volume_mounts {
        name       = "cloudsql"
        mount_path = "/cloudsql"
      }

      dynamic "env" {
        for_each = local.container_env
        content {
          name  = env.value.name
          value = env.value.value
          dynamic "value_source" {
            for_each = env.value.secret[*] # none where there is no secret
            content {
              secret_key_ref {
                secret  = value_source.value
                version = "latest"
              }
            }
          }
        }
      }
    }
  }
}

# Runs before new code: gcloud run jobs execute shop-migrate --wait
resource "google_cloud_run_v2_job" "migrate" {
  name     = "shop-migrate"
  location = var.region

  template {
    template {
      service_account = google_service_account.shop.email
      max_retries     = 1

      volumes {
        name = "cloudsql"
        cloud_sql_instance {
          instances = [var.database_instance]
        }
      }

      containers {
        image   = var.image
        command = ["python"]
        args    = ["manage.py", "migrate"]

        volume_mounts {
          name       = "cloudsql"
          mount_path = "/cloudsql"
        }

        dynamic "env" {
          for_each = local.container_env
          content {
            name  = env.value.name
            value = env.value.value
            dynamic "value_source" {
              for_each = env.value.secret[*] # none where there is no secret
              content {
                secret_key_ref {
                  secret  = value_source.value
                  version = "latest"
                }
              }
            }
          }
        }
      }
    }
  }
}
