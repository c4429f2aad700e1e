#!/usr/bin/env bash
# Runs COMMAND, and where it was told to stop by SIGTERM ends with 143, the status of that signal, though COMMAND saved and
# ended well: what started it then knows that there is more to do. An error's own status is kept. With the name of a file in
# STOPPABLE_FILE it makes that file and ends with 0 instead: srun kills what still saves as soon as one process ends otherwise.
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
if $told && ((status == 0)); then
  if [[ -n ${STOPPABLE_FILE-} ]]; then : > "$STOPPABLE_FILE"; else status=143; fi
fi
exit "$status"
