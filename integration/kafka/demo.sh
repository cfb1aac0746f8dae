#!/usr/bin/env bash
# make demo KAFKA=1: the demo on a Kafka broker of its own, which is gone afterwards.
set -euo pipefail
cd "$(dirname "$0")/../.."
LEAT_KAFKA_DIR=$(mktemp -d)
export LEAT_KAFKA_DIR
# A port that is free now, with the one above it for the broker's controller.
LEAT_KAFKA_PORT=$(python3 -c '
import socket
while True:
    with socket.socket() as a, socket.socket() as b:
        a.bind(("127.0.0.1", 0))
        try: b.bind(("127.0.0.1", a.getsockname()[1] + 1))
        except OSError: continue
        print(a.getsockname()[1]); break')
export LEAT_KAFKA_PORT
trap 'integration/kafka/kafka-dev.sh wipe; rm -rf "$LEAT_KAFKA_DIR"' EXIT
brokers=$(integration/kafka/kafka-dev.sh start 1)
bin/leat demo --rate "$1" --kafka "$brokers"
bin/leat demo --rate "$1" --kafka "$brokers" --mixed
