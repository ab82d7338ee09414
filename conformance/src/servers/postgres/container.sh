# Starts Postgres in a container, in the official image and in others that have its programs, a
# user `postgres`, and a tool to become that user. The parameters are the server's own.
set -eu
initdb=$(command -v initdb || ls /usr/lib/postgresql/*/bin/initdb | tail -n 1)
bin=${initdb%/initdb}

as_postgres() {
    if command -v gosu >/dev/null; then
        exec gosu postgres "$@"
    elif command -v su-exec >/dev/null; then
        exec su-exec postgres "$@"
    fi
    exec setpriv --reuid=postgres --regid=postgres --clear-groups "$@"
}

if [ ! -e data/PG_VERSION ]; then
    # For who looks in with psql.
    ln -s "$bin/psql" psql
    rm -rf data
    mkdir data
    chown -R postgres:postgres .
    for key in *-key.pem; do
        [ ! -e "$key" ] || chmod 600 "$key"
    done
    (as_postgres "$bin/initdb" --no-sync --no-locale --encoding=UTF8 --auth=scram-sha-256 \
        --username=lockcore --pwfile=password -D data)
    # Clients come from outside of the container.
    echo 'host all all all scram-sha-256' >> data/pg_hba.conf
fi
# It was killed, or this is its first start.
rm -f data/postmaster.pid
# Below a shell: from inside, all but the first process can be stopped and killed at once.
(as_postgres "$bin/postgres" "$@") &
wait "$!"
