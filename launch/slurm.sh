#!/usr/bin/env bash
# Trains on nodes of a SLURM cluster: installs into .venv, which they share, and submits a job that goes on by itself.
#
#   launch/slurm.sh --name NAME --nodes N [--gpus G] [OPTIONS] [--dry-run] -- ARGUMENTS OF cc_jax.main
#
#   --name NAME        the job's name
#   --nodes N          how many nodes
#   --gpus G           GPUs of each node; jax for them is installed. Without it, the job trains on CPUs
#   --tasks T          processes on each node (1, which has all of its GPUs); with as many as GPUs, each has one
#   --cpus C           CPU cores of each process, for the data; without it, what the cluster gives: often one
#   --time TIME        the job's time limit, for example 24:00:00; without it, the cluster's
#   --logs DIR         the folder of the log, NAME.JOB.log (logs)
#   --sbatch OPTION    one more option of sbatch, for example --sbatch --partition=a100; may be given again
#   --dry-run          prints the commands, quoted for bash, and runs none
#   --help             prints this
#
# Five minutes before its time is up, and where SLURM preempts it with time to spare, the run saves and the job queues
# again under its number; SLURM itself does so for one that it preempts at once. It then resumes from --workdir, which
# belongs on a disk that all nodes see. A node that dies ends the job; the same command submits another, which resumes.
# End a job for good: scancel JOB.
#
#   launch/slurm.sh --name cc --nodes 4 --gpus 8 --cpus 64 --time 24:00:00 --sbatch --partition=a100 -- \
#     --config configs/siglip_b16_cc.py:data=datasets/cc12m --workdir runs/b16 --config.optim.lr=5e-4

set -euo pipefail

fail() { printf 'slurm.sh: %s\n' "$1" >&2; exit 2; }

name="" nodes="" gpus="" tasks=1 cpus="" time="" logs=logs dry_run=false more=()
while (($#)); do
  case $1 in
    --name=* | --nodes=* | --gpus=* | --tasks=* | --cpus=* | --time=* | --logs=* | --sbatch=*)
      set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    --sbatch)
      [[ ${2-} == --[a-z]* && $2 != *$'\n'* ]] || fail "--sbatch needs an option of sbatch, found '${2-}'."
      more+=("$2"); shift 2 ;;
    --name | --nodes | --gpus | --tasks | --cpus | --time | --logs)
      [[ -n ${2-} && ${2-} != --* ]] || fail "$1 needs a value, found '${2-}' (see --help)."
      printf -v "${1#--}" '%s' "$2"; shift 2 ;;
    --dry-run) dry_run=true; shift ;;
    --help) sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
    --) shift; break ;;
    *) fail "unknown option '$1'; arguments of cc_jax.main follow a --, and before it these are allowed:
  --name, --nodes, --gpus, --tasks, --cpus, --time, --logs, --sbatch, --dry-run, --help" ;;
  esac
done

[[ -n $name ]] || fail "--name is missing: the job's name, for example --name cc."
[[ $name =~ ^[A-Za-z0-9][-._A-Za-z0-9]*$ ]] || fail "--name is '$name'; allowed: letters, digits and inner - . _"
[[ -n $nodes ]] || fail "--nodes is missing: how many nodes, for example --nodes 4."
for option in nodes gpus tasks cpus; do
  [[ $option =~ ^(gpus|cpus)$ && -z ${!option} || ${!option} =~ ^[1-9][0-9]*$ ]] ||
    fail "--$option is '${!option}'; allowed: a whole number from 1."
done
if [[ -n $gpus ]] && ((tasks != 1 && tasks != gpus)); then
  fail "--tasks is $tasks with --gpus $gpus; allowed: 1, which has all, or $gpus, with one each."
fi
[[ $time =~ ^[-:0-9]*$ ]] || fail "--time is '$time'; allowed: minutes, hours:minutes:seconds or days-hours:minutes:seconds."
[[ $logs != *[\"\\%$'\n']* ]] || fail "--logs is '$logs'; allowed: a folder without \", \\ or % in its name."
(($#)) || fail "nothing to run; give the arguments of cc_jax.main after a --, for example
  -- --config configs/siglip_b16_cc.py --workdir runs/b16"
$dry_run || command -v sbatch > /dev/null || fail "sbatch is not on PATH; run this where jobs of the cluster are submitted."

cd "$(dirname "${BASH_SOURCE[0]}")/.."

show() { printf '%q' "$1"; printf ' %q' "${@:2}"; printf '\n'; }  # a command as bash would read it
run() { show "$@"; $dry_run || "$@"; }

batch_script() {
  local step=(srun --kill-on-bad-exit=1)  # one that fails ends the others
  printf '#!/usr/bin/env bash\n'
  printf '#SBATCH %s\n' --job-name="$name" --nodes="$nodes" --ntasks-per-node="$tasks" ${gpus:+--gpus-per-node="$gpus"} \
    ${cpus:+--cpus-per-task="$cpus"} ${time:+--time="$time"} --output="\"$logs/%x.%j.log\"" --open-mode=append --requeue \
    --signal=TERM@300 "${more[@]}"
  if [[ -n $cpus ]]; then step+=(--cpus-per-task="$cpus"); fi  # which srun does not take from the job
  printf 'cd %q || exit\n' "$PWD"
  # shellcheck disable=SC2016
  printf 'export STOPPABLE_FILE=%q.$SLURM_JOB_ID.stopped\nrm -f "$STOPPABLE_FILE"\n' "$logs/$name"
  show "${step[@]}" launch/stoppable.sh .venv/bin/python -u -m cc_jax.main --distributed "$@"
  cat << 'END'
status=$?
# Told to stop, and there is more to do.
if ((status == 0)) && [[ -e $STOPPABLE_FILE ]]; then
  rm -f "$STOPPABLE_FILE"
  status=143
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
END
}

run make install
if [[ -n $gpus ]]; then run .venv/bin/pip install --quiet -e '.[cuda]'; fi
run mkdir -p "$logs"
printf "sbatch --parsable << 'END_OF_JOB'\n%s\nEND_OF_JOB\n" "$(batch_script "$@")"
$dry_run && exit
job=$(batch_script "$@" | sbatch --parsable)
job=${job%%;*}  # a cluster's name may follow
printf 'job %s; its log, once it runs: tail -F %q; its end: scancel %s\n' "$job" "$logs/$name.$job.log" "$job"
