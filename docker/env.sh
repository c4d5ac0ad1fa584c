#!/bin/sh
# Creates .env from .env.example with fresh secrets, once: `sh docker/env.sh`. Needs a shell and the usual tools.
set -eu
umask 077
cd "$(dirname "$0")/.."

if [ -e .env ]; then
    echo ".env exists and is not changed. For fresh secrets, remove it, and the volumes that were created with" \
        "the old ones: docker compose down --volumes" >&2
    exit 0
fi

bytes() { od -An -v -tx1 -N"$1" /dev/urandom | tr -d ' \n'; } # $1 random bytes as hexadecimal digits
uuid() { bytes 16 | sed 's/^\(.\{8\}\)\(.\{4\}\).\(.\{3\}\).\(.\{3\}\)\(.*\)$/\1-\2-4\3-8\4-\5/'; }
base64_of() { head -c "$1" /dev/urandom | base64 | tr -d '\n'; }
url_safe() { base64_of "$1" | tr '+/' '-_'; }

# The storage key may contain a slash, so sed uses | as separator.
sed -e "s|__TENANT_ID__|$(uuid)|g" \
    -e "s|__CLIENT_ID__|$(uuid)|g" \
    -e "s|__SUBSCRIPTION_ID__|$(uuid)|g" \
    -e "s|__CLIENT_SECRET__|$(bytes 24)|g" \
    -e "s|__DATABRICKS_TOKEN__|dapi$(bytes 16)|g" \
    -e "s|__STORAGE_KEY__|$(base64_of 64)|g" \
    -e "s|__POSTGRES_PASSWORD__|$(bytes 16)|g" \
    -e "s|__ADMIN_PASSWORD__|$(bytes 8)|g" \
    -e "s|__FERNET_KEY__|$(url_safe 32)|g" \
    -e "s|__API_SECRET__|$(bytes 32)|g" \
    -e "s|__JWT_SECRET__|$(bytes 32)|g" \
    .env.example >.env.new
mv .env.new .env
echo "Created .env. Airflow's user is admin, its password is AIRFLOW_ADMIN_PASSWORD in that file."
