"""The verification of push and beat requests by the OIDC token that Google signs, before their body is read.

The views call `verification`. It finds the certificate of the token's key (`certificates`, `fetching`) and checks the
token with it (`tokens`). google-auth does the check and is imported when the first token arrives.
"""
