#!/usr/bin/env bash
# Real Apache Kafka (KRaft, no ZooKeeper) on loopback, for tests and local use. Needs Java 17+; Maven only on the first start.
#
#   kafka-dev.sh start [n]   start n brokers (default 1), wait until ready, print the bootstrap address on stdout
#   kafka-dev.sh stop        stop every broker of this data directory (data stays)
#   kafka-dev.sh kill <i>    kill -9 broker i (1..n)
#   kafka-dev.sh up <i>      start broker i again on its old data
#   kafka-dev.sh status      one line for each broker; exit 1 unless all run
#   kafka-dev.sh wipe        stop, and remove the data directory
#
# LEAT_KAFKA_PORT   first client port (19092); broker i listens on PORT+10*(i-1), its controller one above
# LEAT_KAFKA_DIR    data, configuration, logs (${TMPDIR:-/tmp}/leat-kafka-$USER-$PORT)
# LEAT_KAFKA_CACHE  jars (${XDG_CACHE_HOME:-$HOME/.cache}/leat-kafka)
# LEAT_KAFKA_HEAP   heap of each broker (512m)
# LEAT_KAFKA_JAVA   JVM flags; the default starts fast, for measuring take "-XX:+UseG1GC -XX:MaxGCPauseMillis=20"
# LEAT_KAFKA_WAIT   seconds to wait until ready (60)
# LEAT_KAFKA_OPTS   further server.properties lines, separated by ';' (used when a data directory is first made)
# LEAT_KAFKA_CLOCK_i  how far broker i's clock is off, as faketime(1) takes it ("+45m"); needs faketime
# LEAT_KAFKA_PROPS  a file of further server.properties lines, likewise; @PORT@ is the broker's client port, @PORT+2@ to @PORT+5@ are free
set -euo pipefail

die() { echo "kafka-dev: $*" >&2; exit 1; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
pom=$here/pom.xml
port=${LEAT_KAFKA_PORT:-19092}
dir=${LEAT_KAFKA_DIR:-${TMPDIR:-/tmp}/leat-kafka-$(id -un)-$port}
heap=${LEAT_KAFKA_HEAP:-512m}
# Half the start time of the JVM's own choice; the broker then runs C1 code only, which is enough for tests.
java_opts=${LEAT_KAFKA_JAVA:--XX:+UseSerialGC -XX:TieredStopAtLevel=1}
wait_s=${LEAT_KAFKA_WAIT:-60}
case $port in ''|*[!0-9]*) die "LEAT_KAFKA_PORT is not a number: $port" ;; esac
case $wait_s in ''|*[!0-9]*) die "LEAT_KAFKA_WAIT is not a whole number of seconds: $wait_s" ;; esac

client_port() { echo $((port + 10 * ($1 - 1))); }
listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
need_cluster() { [ -f "$dir/nodes" ] || die "no cluster in $dir (run: kafka-dev.sh start)"; } # Not inside $(...), which die cannot leave.
nodes() { cat "$dir/nodes"; }
bootstrap() { local i out=; for i in $(seq "$(nodes)"); do out+=${out:+,}127.0.0.1:$(client_port "$i"); done; echo "$out"; }

# The pid of broker i, only when that process is really ours (a pid may have been used again).
broker_pid() {
  local pid; pid=$(cat "$dir/$1/pid" 2>/dev/null) || return 1
  [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null || return 1
  ps -o args= -p "$pid" 2>/dev/null | grep -qF "$dir/$1/server.properties" || return 1
  echo "$pid"
}

need_java() {
  command -v java >/dev/null || die "java is not on the PATH: a Java 17 (or newer) runtime is needed"
  local v; v=$(java -XshowSettings:properties -version 2>&1 | sed -n 's/^ *java.specification.version = //p')
  case $v in ''|1.*) die "Java 17 or newer is needed, found ${v:-an unknown version}" ;; esac
  [ "${v%%.*}" -ge 17 ] || die "Java 17 or newer is needed, found $v"
}

# Sets $jars. The folder appears by one rename, so a cut-off download never looks complete.
need_jars() {
  local version cache tmp
  version=$(sed -n 's:.*<kafka\.version>\(.*\)</kafka\.version>.*:\1:p' "$pom")
  [ -n "$version" ] || die "no <kafka.version> in pom.xml"
  cache=${LEAT_KAFKA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/leat-kafka}
  jars=$cache/$version
  [ -d "$jars" ] && return
  command -v mvn >/dev/null || die "mvn is not on the PATH: Maven is needed once, to fetch the Kafka $version jars"
  mkdir -p "$cache"
  tmp=$(mktemp -d "$cache/.fetch.XXXXXX")
  echo "kafka-dev: fetching the Kafka $version jars (about 43 MB, once)" >&2
  if ! mvn -q -B -f "$pom" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$tmp" >"$tmp.log" 2>&1; then
    rm -rf "$tmp"; die "fetching the Kafka jars failed: $(grep -m1 ERROR "$tmp.log" | cut -c1-300) (all of it: $tmp.log)"
  fi
  rm -f "$tmp.log"
  if [ -d "$jars" ]; then rm -rf "$tmp"; else mv "$tmp" "$jars" || die "cannot write $jars"; fi # Another start may have been first.
}

# Sets $cds. With an archive of its loaded classes the broker starts in about half the time. The first broker that runs without
# one writes it when it is stopped (keep_archive); where that never happens everything works, only slower.
need_archive() { # i
  local archive; archive=$jars/classes-$(java -version 2>&1 | cksum | cut -d' ' -f1).jsa
  if [ -f "$archive" ]; then cds=-XX:SharedArchiveFile=$archive
  elif [ "$1" = 1 ]; then cds=-XX:ArchiveClassesAtExit=$dir/1/classes.jsa; echo "$archive" >"$dir/1/archive"
  else cds=; fi
}

keep_archive() { # after broker 1 ended by itself
  if [ -s "$dir/1/classes.jsa" ] && [ -f "$dir/1/archive" ]; then mv "$dir/1/classes.jsa" "$(cat "$dir/1/archive")" || true; fi
}

configure() { # n
  local n=$1 i voters= rf isr
  rf=$((n < 3 ? n : 3)); isr=$((rf < 3 ? 1 : 2))
  for i in $(seq "$n"); do voters+=${voters:+,}$i@127.0.0.1:$(($(client_port "$i") + 1)); done
  for i in $(seq "$n"); do
    mkdir -p "$dir/$i"
    cat >"$dir/$i/server.properties" <<EOF
process.roles=broker,controller
node.id=$i
controller.quorum.voters=$voters
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$(client_port "$i"),CONTROLLER://127.0.0.1:$(($(client_port "$i") + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$(client_port "$i")
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$dir/$i/data
default.replication.factor=$rf
min.insync.replicas=$isr
offsets.topic.replication.factor=$rf
transaction.state.log.replication.factor=$rf
transaction.state.log.min.isr=$isr
share.coordinator.state.topic.replication.factor=$rf
share.coordinator.state.topic.min.isr=$isr
# Small and quick: few internal partitions, no wait before the first rebalance, short sessions allowed, small cleaner buffer.
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=8388608
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
# A broker that follows one that is frozen takes up no new role until its read of it has timed out: 30 s by default.
replica.socket.timeout.ms=3000
# A mistyped topic name must be an error, not a new topic.
auto.create.topics.enable=false
EOF
    if [ -n "${LEAT_KAFKA_OPTS:-}" ]; then tr ';' '\n' <<<"$LEAT_KAFKA_OPTS" >>"$dir/$i/server.properties"; fi
    if [ -n "${LEAT_KAFKA_PROPS:-}" ]; then
      local p; p=$(client_port "$i")
      sed "s/@PORT@/$p/g; s/@PORT+1@/$((p + 1))/g; s/@PORT+2@/$((p + 2))/g; s/@PORT+3@/$((p + 3))/g; s/@PORT+4@/$((p + 4))/g; s/@PORT+5@/$((p + 5))/g" \
        "$LEAT_KAFKA_PROPS" >>"$dir/$i/server.properties"
    fi
  done
  cat >"$dir/log4j2.properties" <<'EOF'
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %-5p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
logger.ready.name = kafka.server.KafkaRaftServer
logger.ready.level = info
logger.config.name = org.apache.kafka.common.config
logger.config.level = error
EOF
}

launch() { # i
  local i=$1 d=$dir/$1 cds
  if broker_pid "$i" >/dev/null; then return; fi
  listening "$(client_port "$i")" && die "port $(client_port "$i") is taken by another process (set LEAT_KAFKA_PORT)"
  if [ ! -f "$d/data/meta.properties" ]; then
    java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile="$dir/log4j2.properties" -cp "$jars/*" \
      kafka.tools.StorageTool format -t "$(cat "$dir/cluster.id")" -c "$d/server.properties" >"$d/format.log" 2>&1 ||
      die "formatting broker $i failed: $(grep -m1 -E 'rror|xception' "$d/format.log" | cut -c1-300) (log: $d/format.log)"
  fi
  need_archive "$i"
  local fake=() clock=LEAT_KAFKA_CLOCK_$i; clock=${!clock:-}
  if [ -n "$clock" ]; then
    command -v faketime >/dev/null || die "faketime is not on the PATH: a clock that is off needs it (apt-get install faketime)"
    # Without the wrapper, whose process would stand before java's; without its fix of waits, which lets java spin.
    fake=(env "LD_PRELOAD=$(faketime -m -f +0 printenv LD_PRELOAD)" "FAKETIME=$clock" FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_FORCE_MONOTONIC_FIX=0)
  fi
  # A new session where the system can, so that Ctrl-C in the shell that started it does not end the broker.
  : >"$d/broker.log"
  # shellcheck disable=SC2086
  $(command -v setsid || echo nohup) "${fake[@]}" java "-Xms$heap" "-Xmx$heap" $java_opts ${cds:+"$cds"} -Djava.awt.headless=true \
    -Dlog4j2.configurationFile="$dir/log4j2.properties" -cp "$jars/*" \
    kafka.Kafka "$d/server.properties" >"$d/broker.log" 2>&1 </dev/null 9>&- &
  echo $! >"$d/pid"
}

ready() { # i...: wait until each of them said so and listens
  local i end=$((SECONDS + wait_s))
  for i in "$@"; do
    until grep -q 'Kafka Server started' "$dir/$i/broker.log" && listening "$(client_port "$i")"; do
      kill -0 "$(cat "$dir/$i/pid")" 2>/dev/null || die "broker $i ended while starting: $(grep -m1 -E 'ERROR|Exception|rror:' "$dir/$i/broker.log" | cut -c1-300) (log: $dir/$i/broker.log)"
      [ $SECONDS -lt $end ] || die "broker $i is not ready after $wait_s s (log: $dir/$i/broker.log)"
      sleep 0.1
    done
  done
}

stop_all() {
  [ -f "$dir/nodes" ] || return 0
  local i pid end
  for i in $(seq "$(nodes)"); do if pid=$(broker_pid "$i"); then kill "$pid" 2>/dev/null || true; fi; done
  end=$((SECONDS + 15))
  for i in $(seq "$(nodes)"); do
    while pid=$(broker_pid "$i") && [ $SECONDS -lt $end ]; do sleep 0.1; done
    # The last brokers of a cluster have nobody to hand their partitions to and would wait for minutes.
    if pid=$(broker_pid "$i"); then kill -9 "$pid" 2>/dev/null || true
    elif [ "$i" = 1 ]; then keep_archive; fi
    rm -f "$dir/$i/pid"
  done
  rm -f "$dir/1/classes.jsa"
}

# One start or stop at a time (go test runs packages side by side). Where there is no flock, nobody is kept out.
lock() {
  mkdir -p "$dir"; exec 9>"$dir/lock"
  if command -v flock >/dev/null; then flock -w "$((wait_s * 2))" 9 || die "another kafka-dev.sh holds $dir/lock"; fi
}

one_of() { need_cluster; case ${1:-} in ''|*[!0-9]*) die "which broker? 1..$(nodes)" ;; esac; [ "$1" -ge 1 ] && [ "$1" -le "$(nodes)" ] || die "no broker $1: there are $(nodes)"; }

case ${1:-} in
start)
  n=${2:-1}
  case $n in [1-9]) ;; *) die "the number of brokers must be 1..9, not: $n" ;; esac
  need_java; lock; need_jars
  if [ -f "$dir/nodes" ]; then
    [ "$(nodes)" = "$n" ] || die "$dir holds a cluster of $(nodes), not $n (wipe it, or set LEAT_KAFKA_PORT or LEAT_KAFKA_DIR)"
  else
    configure "$n"
    head -c 16 /dev/urandom | base64 | tr '+/' '-_' | cut -c1-22 | sed 's/^-/A/' >"$dir/cluster.id"
    echo "$n" >"$dir/nodes"
  fi
  for i in $(seq "$n"); do launch "$i"; done
  # shellcheck disable=SC2046
  ready $(seq "$n")
  bootstrap ;;
stop) [ ! -d "$dir" ] || { lock; stop_all; } ;;
kill) one_of "${2:-}"; pid=$(broker_pid "$2") || die "broker $2 does not run"; kill -9 "$pid"
  while broker_pid "$2" >/dev/null || listening "$(client_port "$2")"; do sleep 0.02; done ;; # So that an up right after finds its port free.
up) one_of "${2:-}"; need_java; lock; need_jars; launch "$2"; ready "$2" ;;
status)
  need_cluster; rc=0
  for i in $(seq "$(nodes)"); do
    if pid=$(broker_pid "$i"); then echo "$i 127.0.0.1:$(client_port "$i") pid $pid"; else echo "$i 127.0.0.1:$(client_port "$i") down"; rc=1; fi
  done
  exit $rc ;;
wipe)
  [ -d "$dir" ] || exit 0
  lock
  # The data goes, so nothing is gained by an orderly stop, except by a first broker that has yet to write the archive.
  if [ -f "$dir/nodes" ]; then
    for i in $(seq "$(nodes)"); do
      if [ ! -f "$dir/$i/archive" ] && pid=$(broker_pid "$i"); then kill -9 "$pid" 2>/dev/null || true; fi
    done
  fi
  stop_all
  # Only what start made: the directory may be one that holds other things too.
  if [ -f "$dir/nodes" ]; then for i in $(seq "$(nodes)"); do rm -rf "${dir:?}/$i"; done; fi
  rm -f "$dir/nodes" "$dir/cluster.id" "$dir/log4j2.properties" "$dir/lock"; rmdir "$dir" 2>/dev/null || true ;;
*) die "usage: kafka-dev.sh start [n] | stop | kill <i> | up <i> | status | wipe" ;;
esac
