# The shop on Cloud Run: topics and subscriptions, accounts, the service, the workers, the beat, alerts.
#   terraform init && terraform apply -var project=my-project -var site_url=https://shop.example.com -var image=...
# The database, the secrets, and the domain are expected to exist.

terraform {
  required_version = ">= 1.5"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 7.0"
    }
  }
}

provider "google" {
  project = var.project
  region  = var.region
}

variable "project" {
  type        = string
  description = "The project's id."
}

variable "region" {
  type    = string
  default = "europe-west1"
}

variable "site_url" {
  type        = string
  description = "https://shop.example.com, without a slash at its end."
}

variable "image" {
  type        = string
  description = "The image that examples/shop/Dockerfile makes."
}

variable "database_instance" {
  type        = string
  description = "PROJECT:REGION:INSTANCE of Cloud SQL."
}

variable "namespace" {
  type        = string
  default     = "shop"
  description = "As in I3TASKS: first part of every topic's and subscription's name."
}

variable "workers" {
  type    = number
  default = 2
}

variable "alert_channels" {
  type        = list(string)
  default     = []
  description = "Notification channels of Cloud Monitoring."
}

locals {
  # As in I3TASKS. A queue with `push` is sent to the service; the others are pulled by the workers.
  queues = {
    default = { subscription = "worker", push = false }
    web     = { subscription = "push", push = true }
  }
  push_url = "${var.site_url}/i3/tasks-push/"
  beat_url = "${var.site_url}/i3/tasks-beat/"

  environment = {
    GOOGLE_CLOUD_PROJECT = var.project
    SITE_URL             = var.site_url
    PUSH_ACCOUNT         = google_service_account.push.email
    DB_HOST              = "/cloudsql/${var.database_instance}"
    DRAIN_SECONDS        = "7"
  }
  secrets = {
    SECRET_KEY  = "shop-secret-key"
    DB_PASSWORD = "shop-db-password"
  }
  # What every container gets, of the service, the workers and the job: values, and secrets by their names.
  container_env = concat(
    [for name, value in local.environment : { name = name, value = value, secret = null }],
    [for name, secret in local.secrets : { name = name, value = null, secret = secret }],
  )
}

data "google_project" "this" {}
