#!/usr/bin/env bash
# Runs COMMAND, and where it was told to stop by SIGTERM ends with 143, the status of that signal, though COMMAND saved and
# ended well: what started it (SLURM, Kubernetes) then knows that there is more to do. An error's own status is kept.
#
#   launch/stoppable.sh COMMAND

told=false
trap 'told=true; kill -TERM "$command" 2> /dev/null' TERM
"$@" &
command=$!
wait "$command"  # a signal ends this one early
while kill -0 "$command" 2> /dev/null; do wait "$command"; done
wait "$command"
status=$?
if $told && ((status == 0)); then status=143; fi
exit "$status"
