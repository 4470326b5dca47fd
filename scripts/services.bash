# PostgreSQL and NATS on this machine: finding, installing, starting and ending private ones.
# To be sourced. Every function says on stderr what is wrong, and answers by its exit code.

# What the platform is tested with; older ones lack things that it needs.
readonly POSTGRES_AT_LEAST=15
readonly NATS_AT_LEAST=2.9

say() { printf '%s\n' "$*" >&2; }

# The folder of PostgreSQL's programs; nothing where there is none that is new enough.
postgres_bin() {
    local folder version best='' newest=0
    for folder in "${WONDER_TEST_POSTGRES_BIN:-}" /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
        /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin \
        "$(dirname "$(command -v initdb || echo /nowhere/initdb)")"; do
        [[ -x $folder/initdb && -x $folder/postgres ]] || continue
        version=$("$folder/postgres" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/')
        ((version >= POSTGRES_AT_LEAST && version > newest)) || continue
        best=$folder newest=$version
    done
    printf '%s' "$best"
}

# The NATS server's program; nothing where there is none that is new enough.
nats_bin() {
    local program version
    program=$(PATH=$PATH:/usr/sbin:/usr/local/sbin command -v nats-server || true)
    program=${WONDER_TEST_NATS_BIN:-$program}
    [[ -n $program && -x $program ]] || return 0
    version=$("$program" --version | sed -E 's/^[^0-9]*//')
    [[ $(printf '%s\n' "$NATS_AT_LEAST" "$version" | sort -V | head -n 1) == "$NATS_AT_LEAST" ]] ||
        return 0
    printf '%s' "$program"
}

# Finds both programs (POSTGRES_BIN, NATS_BIN), and installs what is missing where that can be done.
find_services() {
    POSTGRES_BIN=$(postgres_bin) NATS_BIN=$(nats_bin)
    if [[ -z $POSTGRES_BIN || -z $NATS_BIN ]]; then
        install_services || true
        POSTGRES_BIN=$(postgres_bin) NATS_BIN=$(nats_bin)
    fi
    if [[ -z $POSTGRES_BIN ]]; then
        say "PostgreSQL $POSTGRES_AT_LEAST or later is missing: install the package postgresql" \
            "(its folder of programs can be named by WONDER_TEST_POSTGRES_BIN)"
        return 1
    fi
    if [[ -z $NATS_BIN ]]; then
        say "nats-server $NATS_AT_LEAST or later is missing: install the package nats-server" \
            "(its program can be named by WONDER_TEST_NATS_BIN)"
        return 1
    fi
}

# Installs both on Debian and Ubuntu, without a cluster or a service of theirs that runs on.
install_services() {
    command -v apt-get >/dev/null || return 1
    local root=()
    if ((EUID != 0)); then
        sudo -n true 2>/dev/null || return 1
        root=(sudo -n)
    fi
    say "installing postgresql and nats-server"
    "${root[@]}" bash -s >&2 <<'INSTALL'
set -euo pipefail
# One at a time; apt's own lock makes the others fail instead of wait.
exec 9>/tmp/.wonder-install.lock
flock 9
settings=/etc/postgresql-common/createcluster.d/wonder-tests.conf
policy=/usr/sbin/policy-rc.d
made_policy=
end() {
    rm -f "$settings"
    if [[ -n $made_policy ]]; then rm -f "$policy"; fi
}
trap end EXIT
mkdir -p "${settings%/*}"
echo 'create_main_cluster = false' >"$settings"
if [[ ! -e $policy ]]; then
    made_policy=yes
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
packages=(postgresql nats-server)
apt-get install -y --no-install-recommends "${packages[@]}" ||
    { apt-get update && apt-get install -y --no-install-recommends "${packages[@]}"; }
# The package would start it with the machine.
if [[ -d /run/systemd/system ]]; then systemctl disable nats-server || true; fi
INSTALL
}

# A port on loopback that nobody listens on now, below the range of the kernel's own choice.
free_port() {
    local port
    for _ in {1..100}; do
        port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
        if ! (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            printf '%s' "$port"
            return
        fi
    done
    say "no free port was found between 20000 and 32000"
    return 1
}

# Runs a program of PostgreSQL, which refuses to be root.
as_postgres() {
    if ((EUID == 0)); then
        (cd / && runuser -u postgres -- "$@")
    else
        "$@"
    fi
}

# Makes the files of a cluster in a new folder: trusts whoever comes over loopback.
make_postgres() { # FOLDER
    mkdir -p "$1"
    if ((EUID == 0)); then chown postgres "$1"; fi
    chmod 700 "$1"
    as_postgres "$POSTGRES_BIN/initdb" --pgdata "$1" --username postgres --auth trust \
        --encoding UTF8 --locale C --no-sync >/dev/null
}

# Starts a cluster on loopback alone, with the durability that PostgreSQL has by default. Its log
# stands in its folder. (No socket file: a folder may be too deep for one.)
start_postgres() { # FOLDER PORT
    local options="-p $2 -c listen_addresses=127.0.0.1 -c unix_socket_directories="
    options+=" -c max_connections=300 -c max_wal_size=4GB"
    as_postgres "$POSTGRES_BIN/pg_ctl" --pgdata "$1" --log "$1/log" --options "$options" \
        --wait --timeout 60 --silent start >/dev/null 2>&1
}

stop_postgres() { # FOLDER MODE
    [[ -e $1/postmaster.pid ]] || return 0
    as_postgres "$POSTGRES_BIN/pg_ctl" --pgdata "$1" --mode "$2" --wait --silent stop \
        >/dev/null 2>&1
}

# Starts a NATS server with JetStream and waits until it answers; NATS_PID is its process.
start_nats() { # FOLDER PORT
    mkdir -p "$1"
    setsid "$NATS_BIN" --addr 127.0.0.1 --port "$2" --jetstream --store_dir "$1" \
        --log "$1/log" </dev/null >/dev/null 2>&1 &
    NATS_PID=$!
    for _ in {1..200}; do
        if ! kill -0 "$NATS_PID" 2>/dev/null; then return 1; fi
        if grep -q 'Server is ready' "$1/log" 2>/dev/null; then return 0; fi
        sleep 0.05
    done
    return 1
}

# Asks a process to end, and ends it where it hasn't after so many seconds.
stop_process() { # PID SECONDS
    local pid=$1 left=$(($2 * 20))
    kill "$pid" 2>/dev/null || return 0
    while kill -0 "$pid" 2>/dev/null && ((left-- > 0)); do sleep 0.05; done
    kill -KILL "$pid" 2>/dev/null || true
}

# Calls `clean_up` once a process is gone, for where it was killed and couldn't do so itself.
guard_services() { # PID
    set -m
    {
        trap '' INT TERM HUP
        trap - EXIT
        while kill -0 "$1" 2>/dev/null; do sleep 1; done
        clean_up
    } </dev/null >/dev/null 2>&1 8>&- 9>&- &
    GUARD_PID=$!
    set +m
}

# Ends the guard of who cleans up itself: later the files may belong to somebody else.
dismiss_guard() {
    if [[ -n ${GUARD_PID:-} ]]; then
        kill -KILL "$GUARD_PID" 2>/dev/null || true
        wait "$GUARD_PID" 2>/dev/null || true
    fi
}
