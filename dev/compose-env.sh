#!/usr/bin/env bash
# Writes .env with fresh credentials for docker-compose.yml; an existing file stays as it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

random() { head -c "$1" /dev/urandom | od -An -tx1 | tr -d ' \n'; }

if [ -e .env ]; then
  echo ".env is there already" >&2
  exit 0
fi
umask 077
{
  echo "S3_ACCESS_KEY=$(random 10)"
  echo "S3_SECRET_KEY=$(random 24)"
  # Kafka wants 16 bytes in base64
  echo "KAFKA_CLUSTER_ID=$(head -c16 /dev/urandom | base64 | tr '+/' 'xy' | tr -d '=\n')"
} >.env
echo "wrote .env"
