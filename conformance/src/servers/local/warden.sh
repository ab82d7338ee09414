# Parameters: a folder; the number of a process, or nothing; whether it ends by SIGQUIT.
# Waits for the end of its input, ends the process with its children, removes the folder.
trap '' HUP INT TERM
read -r _

# Complete while the parent is stopped.
children() {
    cat "/proc/$1/task/$1/children" 2>/dev/null || pgrep -P "$1"
}

if [ -n "$2" ]; then
    if [ -n "$3" ]; then
        # It may be paused.
        kill -CONT $(children "$2") "$2"
        kill -QUIT "$2"
        waits=0
        while kill -0 "$2" && [ "$waits" -lt 20 ]; do
            waits=$((waits + 1))
            sleep 0.1
        done
    fi
    kill -STOP "$2"
    kill -KILL $(children "$2") "$2"
else
    # Whoever uses the folder is being ended by others.
    sleep 3
fi
# What has just been killed may still be writing.
tries=0
until rm -rf "$1" || [ "$tries" -eq 50 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
