"""Google Cloud Pub/Sub: the publisher, the receiver, and the provisioning of topics and subscriptions.

google-cloud-pubsub (a fifth of a second and 27 MB to import) is loaded by `clients`, `sending`, `streaming` and
`topic_admin` only, and those are imported when first needed: by the publisher's thread, a running receiver, or
`provisioning.ensure`.
"""
