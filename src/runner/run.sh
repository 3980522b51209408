#!/bin/sh
# What haggle runs on a rented machine: POSIX shell, and one of curl, wget or python for HTTP.
# docs/runner.md has the protocol. Variables that begin with HAGGLE_ come from haggle.
set -u
umask 077

now_up() { # seconds since the host's start: no clock that somebody sets
    up=
    { read -r up _ </proc/uptime; } 2>/dev/null
    case $up in *.??) ;; *) up=$(date +%s).00 ;; esac
    hundredths=${up%.*}${up#*.}
    up=${up%.*}
}

# ---------------------------------------------------------------- what there is to work with

has() { command -v "$1" >/dev/null 2>&1; }

find_tools() {
    lacks=
    HTTP=none
    # One that is found and does not run is none.
    for PYTHON in python3 python none; do has "$PYTHON" && "$PYTHON" -c 1 2>/dev/null && break; done
    if has curl; then
        HTTP=curl
    elif has wget && wget --help 2>&1 | grep -q -- --method; then
        HTTP=wget
    elif [ "$PYTHON" != none ]; then
        HTTP=python
    elif has wget; then
        HTTP=little
        lacks="$lacks a-client-that-can-PUT"
    else
        lacks="$lacks an-HTTP-client"
    fi
    SHA=none
    if has sha256sum; then SHA=sha256sum; elif has shasum; then SHA="shasum -a 256"; fi
    [ "$SHA" = none ] && [ "$PYTHON" = none ] && lacks="$lacks sha256sum"
    has tar || lacks="$lacks tar"
    has find || lacks="$lacks find"
    has setsid || lacks="$lacks setsid"
    has nvidia-smi || lacks="$lacks nvidia-smi"
}

find_room() { # a directory that can be written, for what is small
    for WORK in "${HAGGLE_DIR:-/haggle}" /dev/shm/haggle "${TMPDIR:-/tmp}/haggle" /run/haggle "${HOME:-/}/.haggle" none; do
        [ "$WORK" = none ] && break
        # A redirection that fails ends some shells, but not of a command that is none of their own.
        mkdir -p "$WORK" 2>/dev/null && (: >"$WORK/.try") 2>/dev/null && rm -f "$WORK/.try" && break
    done
    [ "$WORK" = none ] && lacks="$lacks a-directory-to-write-in"
}

sha_of() { # of a file, or of what comes in
    if [ "$SHA" != none ]; then
        sum=$($SHA ${1:+"$1"}) && printf %s "${sum%% *}"
    elif [ "$PYTHON" != none ]; then
        "$PYTHON" -c 'import hashlib,sys
h=hashlib.sha256();f=open(sys.argv[1],"rb") if len(sys.argv)>1 else getattr(sys.stdin,"buffer",sys.stdin)
for b in iter(lambda:f.read(1<<20),b""):h.update(b)
sys.stdout.write(h.hexdigest())' ${1:+"$1"}
    fi
}

# ---------------------------------------------------------------- what it tells

seq=0
now_up
boot=$$.$hundredths # a paused instance that resumes counts from one again
state=boot
progress=null
checkpoint=null
exited=null

# sign KEY TEXT: the key before and after it, so that nothing can be appended
sign() { printf '%s\n%s\n%s' "$1" "$2" "$1" | sha_of; }

# say STATE [MORE]: one line for haggle, with what proves that it is ours
say() {
    state=$1
    seq=$((seq + 1))
    doc="{\"v\":1,\"run\":\"${HAGGLE_RUN:-}\",\"generation\":${HAGGLE_GENERATION:-0},\"boot\":\"$boot\",\"seq\":$seq"
    doc="$doc,\"state\":\"$state\",\"at\":$(server_now),\"progress\":$progress"
    doc="$doc,\"checkpoint\":$checkpoint,\"exit\":$exited"
    doc="$doc${fault:+,\"fault\":\"$fault\"}${2:+,$2}}"
    mac=$(sign "${HAGGLE_KEY:-}" "$doc")
    printf '\nHAGGLE %s %s\n' "$doc" "${mac:--}"
}

# A text as JSON, without what would have to be escaped.
text() { printf '"%s"' "$(printf %s "$1" | tr -cd '[:alnum:] ._,:;/@+=()-' | cut -c1-200)"; }

# ---------------------------------------------------------------- HTTP

# call METHOD URL BODY HEADER: the reply's head and body, in $reply
call() {
    reply=
    case $HTTP in
    curl)
        set -- "$@" -s -S -i -m 20 -X "$1"
        [ -n "$3" ] && set -- "$@" -H 'Content-Type: application/json' -d "$3"
        url=$2 header=$4
        shift 4
        reply=$(curl "$@" -H "$header" "$url" 2>/dev/null)
        ;;
    wget)
        reply=$(wget -q -S -O - -T 20 -t 1 --content-on-error --method="$1" ${3:+--body-data="$3"} \
            --header='Content-Type: application/json' --header="$4" "$2" 2>&1)
        ;;
    little)
        # Some of these crash at a time-out of their own.
        [ "$1" = GET ] && reply=$(limited 20 wget -q -S -O - --header "$4" "$2" 2>&1)
        ;;
    python)
        reply=$("$PYTHON" -c 'import sys
try:import urllib.request as u
except ImportError:import urllib2 as u
m,l,b,h=sys.argv[1:5];k,v=h.split(": ",1)
r=u.Request(l,b.encode() or None,{k:v,"Content-Type":"application/json"});r.get_method=lambda:m
try:a=u.urlopen(r,timeout=20)
except IOError as e:
  a=e
  if not hasattr(e,"headers"):sys.exit(1)
print("HTTP/1.1 %d"%a.getcode());print(a.headers);print(a.read().decode("utf-8","replace"))' "$1" "$2" "$3" "$4" 2>/dev/null)
        ;;
    esac
    code=$(printf '%s\n' "$reply" | sed -n 's/^ *HTTP\/[0-9.]* \([0-9][0-9]*\).*/\1/p' | tail -n 1)
    told=$(printf '%s\n' "$reply" | sed -n 's/^ *[Dd][Aa][Tt][Ee]: *\(.*\)/\1/p' | tail -n 1 | tr -d '\r')
    [ -n "$told" ] && set_time "$told"
    [ -n "$code" ] && [ "$code" -lt 300 ]
}

# fetch URL FILE [SECONDS], put FILE URL: for what is large. 4: whoever has it does not give it. With
# $follow it may be elsewhere.
follow=
fetch() {
    most=${3:-${HAGGLE_TRANSFER:-3600}} answered=
    case $HTTP in
    curl) # What stalls is no download: it is begun again.
        answered=$(curl -s -f -g ${follow:+-L --proto-redir "$follow"} -w 'HTTP/1 %{http_code} ' -m "$most" --connect-timeout 30 \
            --speed-limit 10000 --speed-time "${HAGGLE_STALL:-120}" -o "$2" "$1" 2>/dev/null) ;;
    wget) answered=$(limited "$most" wget -q -S -T 60 -O "$2" "$1" 2>&1) ;;
    little) answered=$(limited "$most" wget -q -S -O "$2" "$1" 2>&1) ;;
    python) answered=$(limited "$most" "$PYTHON" -c 'import sys,shutil
try:import urllib.request as u
except ImportError:import urllib2 as u
try:a=u.urlopen(sys.argv[1],timeout=60)
except IOError as e:
  print("HTTP/1 %s "%getattr(e,"code",0));sys.exit(1)
n=a.headers.get("Content-Length")
with open(sys.argv[2],"wb") as f:
  shutil.copyfileobj(a,f,1<<20)
  if n and f.tell()!=int(n):sys.exit(1)' "$1" "$2" 2>/dev/null) ;;
    *) return 1 ;;
    esac && return 0
    case $(printf '%s\n' "$answered" | sed -n 's/.*HTTP\/[0-9.]* \([0-9][0-9]*\).*/\1/p' | tail -n 1) in
    408 | 429) return 1 ;;
    4[0-9][0-9]) return 4 ;;
    *) return 1 ;;
    esac
}

put() {
    case $HTTP in
    curl) curl -s -S -f -m "${HAGGLE_TRANSFER:-3600}" -o /dev/null -T "$1" "$2" ;;
    wget) wget -q -T 60 -t 1 -O /dev/null --method=PUT --body-file="$1" "$2" ;;
    python) "$PYTHON" -c 'import os,sys
try:import urllib.request as u
except ImportError:import urllib2 as u
f=open(sys.argv[1],"rb");r=u.Request(sys.argv[2],f,{"Content-Length":str(os.path.getsize(sys.argv[1]))})
r.get_method=lambda:"PUT";u.urlopen(r,timeout=60)' "$1" "$2" ;;
    *) return 1 ;;
    esac 2>/dev/null
}

# ---------------------------------------------------------------- time, by the marketplace's clock

server=0
server_up=0

# "Tue, 24 Nov 2026 18:05:00 GMT" -> seconds
set_time() {
    # shellcheck disable=SC2086 # the words of a date
    set -f && set -- $1 && set +f
    [ $# -ge 5 ] || return 0
    case $3 in
    Jan) m=1 ;; Feb) m=2 ;; Mar) m=3 ;; Apr) m=4 ;; May) m=5 ;; Jun) m=6 ;;
    Jul) m=7 ;; Aug) m=8 ;; Sep) m=9 ;; Oct) m=10 ;; Nov) m=11 ;; Dec) m=12 ;;
    *) return 0 ;;
    esac
    case "$2$4$5" in *[!0-9:]*) return 0 ;; esac
    d=${2#0} y=$4 h=${5%%:*} s=${5##*:} n=${5#*:}
    n=${n%%:*}
    [ "$m" -le 2 ] && y=$((y - 1)) && m=$((m + 12))
    days=$((365 * y + y / 4 - y / 100 + y / 400 + (153 * (m - 3) + 2) / 5 + d - 719469))
    now_up
    server=$((days * 86400 + ${h#0} * 3600 + ${n#0} * 60 + ${s#0}))
    server_up=$up
}

server_now() {
    now_up
    if [ "$server" -gt 0 ]; then printf %s $((server + up - server_up)); else printf 0; fi
}

# ---------------------------------------------------------------- the label: gate, fence and lease

api() { call "$1" "${HAGGLE_API:-https://console.vast.ai}/api/v0/instances/${CONTAINER_ID:-0}/${2:-}" "${3:-}" "Authorization: Bearer ${CONTAINER_API_KEY:-none}"; }

lease=0
says=unknown

# Reads the label: says=go, hold, done or else; unknown where it could not be read.
read_label() {
    says=unknown
    api GET '?owner=me' || return 0
    printf %s "$reply" | grep -q "\"id\": *${CONTAINER_ID:-0}[,}]" || return 0
    label=$(printf %s "$reply" | tr -d '\r\n' | sed -n 's/.*"label": *"\([^"]*\)".*/\1/p')
    says=else
    case $label in
    "${HAGGLE_LABEL:-}/g${HAGGLE_GENERATION:-0}."*) ;;
    *) return 0 ;;
    esac
    tail=${label##*/g"${HAGGLE_GENERATION:-0}".}
    case $tail in go.* | hold.* | done.*) ;; *) return 0 ;; esac
    end=${tail#*.}
    case $end in '' | *[!0-9]*) return 0 ;; esac
    says=${tail%%.*}
    lease=$end
}

# Looks at the label, not oftener than every so many seconds: 0 means work, else $why says why not.
looked=-100000
why=unread
may_work() {
    [ "${HAGGLE_LEASE:-0}" = 0 ] && return 0
    now_up
    if [ $((up - looked)) -ge "$1" ]; then
        looked=$up
        read_label
        [ "$says" = unknown ] || believed=$says
    fi
    why=$believed
    [ "$believed" = go ] || return 1
    why=lapsed
    [ "$(server_now)" -lt "$lease" ]
}
believed=unread

# Past the second term nobody renews it any more.
is_forgotten() {
    [ "${HAGGLE_LEASE:-0}" != 0 ] && [ "$lease" -gt 0 ] && [ "$(server_now)" -ge $((lease + HAGGLE_LEASE)) ]
}

stop_self() { api PUT '' '{"state":"stopped"}'; }
destroy_self() { api DELETE '' ''; }

nap() { # a sleep that a signal ends
    sleep "$1" &
    wait $! 2>/dev/null
}

# ---------------------------------------------------------------- preflight

at_least() { # MEASURED EXPECTED: 70 % by default
    case ${1:-x}${2:-x} in *[!0-9]*) return 0 ;; esac
    [ $(($1 * 100)) -ge $(($2 * ${HAGGLE_SHARE:-70})) ]
}

limited() { if has timeout; then timeout "$@"; else shift && "$@"; fi; }

preflight() {
    bad="" gpus=null model=null vram=null free=null driver=null disk=null down=null alloc=null
    if has nvidia-smi && ask_driver name,memory.total,memory.free,driver_version; then
        smi=$said
        gpus=$(printf '%s\n' "$smi" | grep -c .)
        IFS=, read -r model vram free driver <<SMI
$(printf '%s\n' "$smi" | sort -t, -k3 -n | head -n 1)
SMI
        vram=$(printf %s "$vram" | tr -cd 0-9) free=$(printf %s "$free" | tr -cd 0-9)
        [ "$gpus" -ge "${HAGGLE_GPUS:-0}" ] || bad=gpus
        case "$model" in *"${HAGGLE_MODEL:-}"*) ;; *) bad=model ;; esac
        at_least "$free" "${HAGGLE_VRAM:-}" || bad=vram
        model=$(text "$model") driver=$(text "$driver")
        [ "$PYTHON" != none ] && [ -n "${HAGGLE_VRAM:-}" ] && allocate
    elif [ "${HAGGLE_GPUS:-0}" -gt 0 ]; then
        has nvidia-smi && bad=gpus
        # An image without the tool says nothing against the host; a host without the device does.
        ls /dev/nvidia0 >/dev/null 2>&1 || bad=gpus
    fi
    [ "$WORK" != none ] && measure_disk
    [ -n "${HAGGLE_SPEED_URL:-}" ] && measure_down
    if [ -n "$bad" ]; then say refused "$(measured)"; return 1; fi
    say preflight "$(measured)"
}

measured() {
    printf '"gpus":%s,"model":%s,"vram":%s,"free":%s,"allocated":%s,"driver":%s,"disk":%s,"down":%s,"bad":"%s"' \
        "$gpus" "$model" "${vram:-null}" "${free:-null}" "$alloc" "$driver" "$disk" "$down" "$bad"
}

# Whether so much memory of a GPU can really be had, by the driver's own library.
allocate() {
    alloc=$(limited 20 "$PYTHON" -c 'import ctypes,sys
c=ctypes.CDLL("libcuda.so.1");v=ctypes.c_void_p();d=ctypes.c_int();want=int(sys.argv[1])*1048576
e=c.cuInit(0) or c.cuDeviceGet(ctypes.byref(d),0) or c.cuCtxCreate_v2(ctypes.byref(v),0,d)
if e:print("null" if e in(3,34) else 0)
else:
  e=c.cuMemAlloc_v2(ctypes.byref(v),ctypes.c_size_t(want));print(0 if e else want//1048576)' \
        $((HAGGLE_VRAM * ${HAGGLE_SHARE:-70} / 100)) 2>/dev/null)
    case ${alloc:=null} in
    0) bad=allocation ;;
    *[!0-9]*) alloc=null ;;
    esac
}

# MB/s that reach the disk. A host that takes over 20 s for 256 MB is told of as what it managed.
measure_disk() {
    now_up
    began=$hundredths
    limited 20 dd if=/dev/zero of="$WORK/.speed" bs=1048576 count=256 conv=fsync 2>/dev/null
    wrote=$(($(wc -c <"$WORK/.speed" 2>/dev/null || echo 0) / 1048576))
    rm -f "$WORK/.speed"
    now_up
    took=$((hundredths - began))
    # A full disk says nothing about its speed.
    [ "$wrote" -lt 256 ] && [ "$took" -lt 1900 ] && return 0
    disk=$((wrote * 100 / (took > 0 ? took : 1)))
    at_least "$disk" "${HAGGLE_DISK:-}" || bad=disk
}

# Mbit/s from a URL of some megabytes.
measure_down() {
    [ "$HTTP" = curl ] || return 0
    bytes=$(curl -s -m 15 -o /dev/null -w '%{speed_download}' "$HAGGLE_SPEED_URL" 2>/dev/null)
    bytes=${bytes%%[!0-9]*}
    [ -n "$bytes" ] && down=$((bytes / 125000))
    [ "$down" = null ] || at_least "$down" "${HAGGLE_DOWN:-}" || bad=download
}

# ---------------------------------------------------------------- data: the control document

# The document says where everything goes: a line "NAME URL" each. Its own next address is one of
# them, for an address that is signed does not live long. One process at a time reads it.
control=${HAGGLE_CONTROL:-}
read_control() {
    [ -n "$control" ] && [ "$WORK" != none ] || return 1
    next=$(where control)
    for from in ${next:-} "$control"; do
        if fetch "$from" "$WORK/control.new" 60 && grep -q '^haggle 1$' "$WORK/control.new"; then
            mv "$WORK/control.new" "$WORK/control"
            return 0
        fi
    done
    return 1
}

where() { sed -n "s/^$1 //p" "$WORK/control" 2>/dev/null | head -n 1; }

# Paths, sizes and sums of a directory's files, one line each, in order of path. By what comes in: of a
# name with a backslash some tools make another one.
list() {
    (cd "$1" && find . -type f ! -name '.haggle*' | LC_ALL=C sort | while IFS= read -r f; do
        printf '%s %s %s\n' "$(sha_of <"$f")" "$(($(wc -c <"$f")))" "$f"
    done)
}

# free_kb PLACE: how many KB are free there, in $free; nothing where nobody says it.
free_kb() { free=$(df -Pk "$1" 2>/dev/null | sed -n '$s/.* \([0-9][0-9]*\)  *[0-9]*%.*/\1/p'); }

# has_room DIR PLACE: whether an archive of it fits there: a full disk stops the command's own writing.
has_room() {
    has du && has df || return 0
    need=$(du -sk "$1" 2>/dev/null | sed -n '$s/^\([0-9]*\).*/\1/p')
    free_kb "$2"
    [ -z "$need" ] || [ -z "$free" ] || [ "$free" -gt $((need + need / 10 + 1024)) ]
}

# put_tree DIR NAME: the directory as one archive, and then the manifest that says what it is. What
# has no manifest was not finished. 1: it cannot be kept; 2: it changed meanwhile.
put_tree() {
    now_up
    room=$WORK/$2.$hundredths
    [ -z "$KEPT" ] || room=$KEPT-$hundredths
    mkdir -p "$room" && put_from "$room" "$1" "$2"
    done=$?
    rm -rf "$room"
    return $done
}

put_from() {
    url=$(where "$3.tar")
    list=$(where "$3.manifest")
    [ -n "$KEPT" ] || { [ -n "$url" ] && [ -n "$list" ]; } || return 1
    has tar && has find && has_room "$2" "$1" || return 1
    list "$2" >"$1/before" || return 1
    tar -C "$2" --exclude='./.haggle*' -cf "$1/tar" . 2>/dev/null
    case $? in 0) ;; 1) return 2 ;; *) return 1 ;; esac
    list "$2" >"$1/after" || return 1
    # What changed while it was packed is no state of the work.
    [ "$(sha_of "$1/before")" = "$(sha_of "$1/after")" ] || return 2
    # A name with a line break would make two lines of one.
    grep -qv '^[0-9a-f]\{64\} [0-9][0-9]* \./.' "$1/after" && return 1
    sum=$(sha_of "$1/tar") size=$(($(wc -c <"$1/tar")))
    { printf 'haggle 1 %s %s %s\n' "${HAGGLE_RUN:-}" "$sum" "$size" && cat "$1/after"; } >"$1/manifest" || return 1
    [ "$(($(wc -c <"$1/manifest")))" -le 16777216 ] || return 1
    if [ -n "$KEPT" ]; then
        stay "$1"
        return
    fi
    manifest=$(sha_of "$1/manifest")
    [ ${#manifest} = 64 ] && put "$1/tar" "$url" && put "$1/manifest" "$list" || return 1
}

# Without storage the last whole checkpoint stays beside its directory, for another machine to take: the
# archive, and then the manifest that names it and says whose it is.
stay() {
    signed=$(sign "$(sign "${HAGGLE_KEY:-}" kept)" "$(sha_of "$1/manifest")")
    printf 'signed %s\n' "$signed" >>"$1/manifest" || return 1
    manifest=$(sha_of "$1/manifest")
    [ ${#manifest} = 64 ] && [ ${#sum} = 64 ] || return 1
    mkdir -p "$KEPT" && mv -f "$1/tar" "$KEPT/$sum.tar" && mv -f "$1/manifest" "$KEPT/manifest" || return 1
    for old in "$KEPT"/*.tar; do
        [ "$old" = "$KEPT/$sum.tar" ] || rm -f "$old"
    done
}

# get_tree NAME DIR: an archive whose sum is as its manifest says, unpacked. 1: it cannot be had; 2: it
# is not what it should be.
get_tree() {
    url=$(where "$1.tar")
    list=$(where "$1.manifest")
    [ -n "$url" ] && [ -n "$list" ] || return 1
    now_up
    room=$WORK/$1.$hundredths
    mkdir -p "$room" "$2" || return 1
    # Where it is said which manifest it is to be, another one is not that checkpoint: the machine that
    # made it may write there still.
    is=$(where "$1.sum")
    done=1
    if fetch "$list" "$room/manifest" && fetch "$url" "$room/tar"; then
        if { [ -n "$is" ] && [ "$is" != "$(sha_of "$room/manifest")" ]; } ||
            [ "$(sed -n '1s/^haggle 1 [^ ]* \([0-9a-f]*\) .*/\1/p' "$room/manifest")" != "$(sha_of "$room/tar")" ]; then
            done=2
        elif tar -C "$2" -xf "$room/tar" 2>/dev/null; then
            done=0
        fi
    fi
    rm -rf "$room"
    return $done
}

# ---------------------------------------------------------------- the command

CHECKPOINT=${HAGGLE_CHECKPOINT_DIR:-}
KEPT=${HAGGLE_KEPT:-}
last=2
saved=
synced=-100000
pid=

# Whether what is done aside may go on: the command's label says go, or it is done behind the gate.
goes_on() { may_work "${HAGGLE_LOOK:-60}" || { [ -n "$behind" ] && [ "$believed" = hold ] && ! is_forgotten; }; }

# aside COMMAND: something that takes long. It is heard meanwhile, and the label is looked at; where
# nothing may be done any more, it is ended. What is saved because the work has to end goes on.
doing=boot more='' ending='' behind=''
aside() {
    "$@" &
    worker=$!
    now_up
    busy=$up
    while is_alive "$worker"; do
        nap "${HAGGLE_TICK:-2}"
        now_up
        if [ $((up - busy)) -ge "${HAGGLE_BUSY:-120}" ]; then
            [ "$doing" != fetching ] || [ -z "$more" ] || say_fetching
            say "$doing" "$more" && busy=$up
        fi
        if [ -n "$ending" ]; then
            is_forgotten || continue
        elif [ -z "$signalled" ] && goes_on; then
            continue
        fi
        kill_tree "$worker"
        wait "$worker" 2>/dev/null
        return 1
    done
    wait "$worker"
}

# A process of ours, and all that it began: what is left over would write where the next one writes.
kill_tree() {
    doomed=$1 those=$1
    while [ -n "$those" ]; do
        next=
        for stat in /proc/[0-9]*; do
            { read -r what <"$stat/stat"; } 2>/dev/null || continue
            what=${what##*) }
            what=${what#? }
            case " $those " in *" ${what%% *} "*) next="$next${next:+ }${stat#/proc/}" ;; esac
        done
        those=$next
        doomed="$doomed $next"
    done
    # shellcheck disable=SC2086 # one word a process
    kill $doomed 2>/dev/null
}

# Whether this disk has work of ours: then it is newer than anything that was uploaded before. What is
# there beside may have come with the image.
is_begun() { [ -e "$CHECKPOINT/.haggle-begun" ] || { [ "$WORK" != none ] && [ -e "$WORK/begun" ]; }; }

# Restores into the checkpoint's directory what haggle says is the last good one.
restore() {
    [ -n "$CHECKPOINT" ] || return 0
    mkdir -p "$CHECKPOINT" 2>/dev/null
    # What was half unpacked when the machine was lost is no work.
    [ -e "$CHECKPOINT/.haggle-half" ] && rm -f "$WORK/begun" && rm -rf "$CHECKPOINT" 2>/dev/null && mkdir -p "$CHECKPOINT"
    [ -z "$KEPT" ] || { mkdir -p "$KEPT" && (: >"$KEPT/begun"); } 2>/dev/null
    # What was copied once more takes room for nothing.
    [ -z "${HAGGLE_BROUGHT:-}" ] || rm -rf "$HAGGLE_BROUGHT"
    [ -n "$control" ] || return 0
    is_begun && return 0
    doing=restoring more=
    say restoring
    # Without the document nobody knows whether there is something to begin with.
    aside read_control || { say trouble '"trouble":"where the data is could not be read"'; return 1; }
    if [ -n "$(where restore.tar)" ]; then
        (: >"$CHECKPOINT/.haggle-half") 2>/dev/null || { say trouble '"trouble":"the directory for the checkpoint cannot be written"'; return 1; }
        aside get_tree restore "$CHECKPOINT"
        case $? in
        0) rm -f "$CHECKPOINT/.haggle-half" ;;
        2) say trouble "\"trouble\":\"the checkpoint is not what it should be\",\"restore\":\"$(where restore.sum)\"" && return 1 ;;
        *) say trouble '"trouble":"the checkpoint could not be fetched and unpacked"' && return 1 ;;
        esac
    fi
    (: >"$CHECKPOINT/.haggle-begun") 2>/dev/null
    (: >"$WORK/begun") 2>/dev/null
    return 0
}

# ---------------------------------------------------------------- inputs

# What has to be there before the command begins: each is fetched beside its place, tried, and moved
# there. What tells which one is there lies beside it, and says "half" from when the place is ours.

# The place of input N, what lies beside it, and where it is made.
input_at() {
    to=$(where "input$1.to")
    id=$(where "input$1.id")
    mark=${to%/*}/.haggle-input.${to##*/}
    made=$mark.new
}

# Whether all are there that this run was to have: then nothing is asked of anybody.
has_inputs() {
    [ "$(sed -n 1p "$WORK/inputs" 2>/dev/null)" = "${HAGGLE_RUN:-}" ] || return 1
    sed 1d "$WORK/inputs" >"$WORK/inputs.try" || return 1
    while IFS= read -r to; do
        [ -e "$to" ] || return 1
    done <"$WORK/inputs.try"
}

# fetch_input N: what is wrong in $WORK/why. 1: it could not be read; 2: it is not what it should be;
# 3: it cannot be put there; 4: it is not given; 5: it is another one by now.
fetch_input() {
    input_at "$1"
    url=$(where "input$1") sum=$(where "input$1.sum") size=$(where "input$1.bytes") pack=$(where "input$1.unpack")
    echo 'it is not said what it is' >"$WORK/why"
    [ -n "$url" ] && [ -n "$to" ] && [ -n "$id" ] || return 1
    was=
    { read -r was <"$mark"; } 2>/dev/null
    [ "$was" = "$id" ] && [ -e "$to" ] && return 0
    # What is not ours is not thrown away.
    echo 'there is something else in its place: choose another' >"$WORK/why"
    if [ -n "$pack" ] && [ -z "$was" ] && { [ -e "$to" ] || [ -L "$to" ]; }; then
        [ ! -L "$to" ] && rmdir "$to" 2>/dev/null || return 3
    elif [ -z "$pack" ] && [ -z "$was" ] && [ -d "$to" ]; then
        return 3
    fi
    echo 'it cannot be written there' >"$WORK/why"
    mkdir -p "${to%/*}" && (echo half >"$mark") || return 3
    rm -rf "$made" "$made.dir"
    free_kb "${to%/*}/"
    need=$((${size:-0} / 1024))
    [ -z "$pack" ] || need=$((need * 2))
    if [ -n "$free" ] && [ "$need" -gt "$free" ]; then
        echo "the disk has no room for it: it needs $need KB, and $free KB are free: raise disk in machine" >"$WORK/why"
        return 3
    fi
    # Its time follows from its length, where that is known; haggle gives up a machine that is too slow.
    limit=14400
    [ -z "$size" ] || limit=$((size / 1000000))
    [ "$limit" -ge "${HAGGLE_TRANSFER:-3600}" ] || limit=${HAGGLE_TRANSFER:-3600}
    follow='=https'
    case $url in http://*) follow='=http,https' ;; esac
    for pause in 5 20 no; do
        rm -rf "$made" "$made.dir" "$WORK/came"
        echo 'it could not be read' >"$WORK/why"
        fetch "$url" "$made" "$limit"
        done=$?
        [ "$done" != 4 ] || echo 'it is not there, or not to be had without a login' >"$WORK/why"
        if [ "$done" = 0 ]; then
            (: >"$WORK/came") 2>/dev/null
            place_input && return 0
        fi
        case $done in 1 | 2) is_full ;; esac
        case $pause$done in no* | *[35]) break ;; esac
        sleep "${HAGGLE_PAUSE:-$pause}"
        # An address that has expired is another one in the next document.
        [ -z "$control" ] || { read_control && url=$(where "input$1"); }
    done
    rm -rf "$made" "$made.dir"
    return "$done"
}

# Whether it came to nothing for there is hardly any room left.
is_full() {
    free_kb "${to%/*}/"
    [ -n "$free" ] && [ "$free" -lt 4096 ] || return 1
    done=3
    # What is said of it needs room, too.
    rm -rf "$made" "$made.dir"
    echo 'the disk is full: raise disk in machine' >"$WORK/why"
}

# Tries what came, and puts it in its place; in $done what is wrong, as above.
place_input() {
    if [ -n "$sum" ]; then
        is=$(sha_of "$made")
        done=3
        echo 'the image has nothing that reckons a SHA-256' >"$WORK/why"
        [ -n "$is" ] || return 1
        done=2
        echo 'what comes has another SHA-256' >"$WORK/why"
        [ "$is" = "$sum" ] || return 1
    elif [ -n "$size" ] && [ "$(($(wc -c <"$made")))" != "$size" ]; then
        # Small clients do not tell what broke off.
        done=1
        case $HTTP in curl | python) done=5 ;; esac
        echo 'what comes is longer or shorter than it was' >"$WORK/why"
        return 1
    fi
    [ -z "$pack" ] || unpack_input || return 1
    done=3
    echo 'it cannot be moved there' >"$WORK/why"
    [ ! -d "$to" ] || rm -rf "$to"
    mv -f "$made" "$to" && echo "$id" >"$mark.id" && mv -f "$mark.id" "$mark" && done=0
    return "$done"
}

# An archive becomes a fresh directory, of whoever unpacks it: not every owner is one here. What leads out
# of it is no input.
unpack_input() {
    done=3
    echo 'the image has no tar' >"$WORK/why"
    has tar || return 1
    done=2
    echo 'it is no archive that can be unpacked there' >"$WORK/why"
    z=
    [ "$pack" = tar ] || z=z
    rm -rf "$made.dir"
    tar -t${z}f "$made" >"$made.list" 2>/dev/null
    good=$?
    grep -q -e '^/' -e '^\.\./' -e '/\.\./' -e '/\.\.$' -e '^\.\.$' "$made.list" && good=1
    rm -f "$made.list"
    if [ "$good" = 0 ] && mkdir "$made.dir" && tar -C "$made.dir" -xo${z}f "$made" 2>/dev/null; then
        rm -f "$made" && mv "$made.dir" "$made" && return 0
    fi
    return 1
}

# Of what is on its way, for the lines meanwhile. What came whole does not grow while it is tried and unpacked.
say_fetching() {
    kb=null
    [ -e "$WORK/came" ] || kb=$(du -sk "$made" 2>/dev/null | sed -n '$s/^\([0-9]*\).*/\1/p')
    more="\"fetch\":{\"input\":$((number + 1)),\"of\":$HAGGLE_INPUTS,\"kb\":${kb:-0}}"
}

inputs() {
    [ "${HAGGLE_INPUTS:-0}" -gt 0 ] || return 0
    [ "$WORK" != none ] || { say trouble '"trouble":"there is no directory for what is said of the inputs"'; return 1; }
    has_inputs && return 0
    doing=fetching more=
    say fetching
    if [ -z "$control" ]; then
        printf '%s\n' "${HAGGLE_FETCH:-}" >"$WORK/control"
    else
        aside read_control || { say trouble '"trouble":"where the inputs are could not be read"'; return 1; }
    fi
    echo "${HAGGLE_RUN:-}" >"$WORK/inputs.new"
    number=0
    while [ "$number" -lt "$HAGGLE_INPUTS" ]; do
        input_at "$number"
        rm -f "$WORK/came"
        say_fetching
        aside fetch_input "$number"
        case $? in
        0) cause= ;;
        2) cause=wrong ;;
        3) cause=place ;;
        4) cause=refused ;;
        5) cause=changed ;;
        *) cause=unread ;;
        esac
        number=$((number + 1))
        if [ -n "$cause" ]; then
            # It may have been ended, for its label says so.
            [ -z "$signalled" ] && goes_on || return 1
            cause="\"fetch\":{\"input\":$number,\"fault\":\"$cause\"}"
            say trouble "\"trouble\":$(text "$(cat "$WORK/why"): input $number for $to"),$cause"
            return 1
        fi
        printf '%s\n' "$to" >>"$WORK/inputs.new"
    done
    more=
    mv "$WORK/inputs.new" "$WORK/inputs"
}

# Keeps the checkpoint elsewhere, if it changed. Three places take turns: the last one that was
# finished stays, and the one that haggle knows of. What comes of it is in a file, for this may be a
# process of its own.
keep() {
    # Without it nobody knows which place must not be written over.
    [ -n "$KEPT" ] || read_control || return 1
    is=$(list "$CHECKPOINT" | sha_of)
    [ "$is" = "$saved" ] && { [ -z "$KEPT" ] || [ -e "$KEPT/manifest" ]; } && return 3
    slot=$(((last + 1) % 3))
    [ "$(where keep)" = "$slot" ] && slot=$(((last + 2) % 3))
    put_tree "$CHECKPOINT" "checkpoint$slot" || return $?
    printf '%s %s %s %s\n' "$is" "$slot" "$manifest" "$size" >"$WORK/kept.new" && mv "$WORK/kept.new" "$WORK/kept"
}

keeps() { [ -n "$CHECKPOINT" ] && [ -d "$CHECKPOINT" ] && [ -n "$control$KEPT" ] && [ "$WORK" != none ]; }

# kept CODE: tells what came of keeping it. What changes all the time is told of, too: it is nowhere else.
unsaved='' restless=0 where_to=uploaded
[ -z "$KEPT" ] || where_to='kept beside its directory'
kept() {
    [ "$1" = 2 ] && restless=$((restless + 1)) || restless=0
    case $1 in
    0)
        unsaved=
        know_kept
        say "$state"
        ;;
    2)
        [ $restless -lt 5 ] && synced=$((up - ${HAGGLE_SYNC:-600} + 5)) && return 0
        unsaved=yes restless=0
        say "$state" "\"trouble\":\"the checkpoint changes all the time and could not be $where_to\""
        ;;
    3) unsaved= ;;
    *)
        unsaved=yes
        say "$state" "\"trouble\":\"the checkpoint could not be $where_to\""
        ;;
    esac
}

# What was kept last, also by an earlier start of the container.
know_kept() {
    { read -r saved last manifest size <"$WORK/kept"; } 2>/dev/null || return 0
    checkpoint="{\"slot\":$last,\"manifest\":\"$manifest\",\"bytes\":$size}"
}

# Keeps it beside the command, which goes on meanwhile.
keeper=
keep_beside() {
    if [ -n "$keeper" ]; then
        is_alive "$keeper" && return 0
        wait "$keeper"
        code=$? keeper=
        now_up
        synced=$up
        kept $code
    elif keeps && [ $((up - synced)) -ge "${HAGGLE_SYNC:-600}" ]; then
        keep &
        keeper=$!
    fi
}

# Keeps it now, once the command has ended.
keep_now() {
    doing=saving more=
    if [ -n "$keeper" ]; then
        aside wait_for "$keeper" || kill_tree "$keeper"
        wait "$keeper"
        code=$? keeper=
        kept $code
    fi
    keeps || return 0
    say saving
    # What ended while it was written is written now.
    for _ in 1 2 3; do
        aside keep
        code=$?
        kept $code
        [ $code = 2 ] || return 0
    done
    unsaved=yes
}

wait_for() { while is_alive "$1"; do sleep 1; done; }

read_progress() {
    [ -n "${HAGGLE_PROGRESS:-}" ] || return 0
    new=$(tail -n 1 "$HAGGLE_PROGRESS" 2>/dev/null | tr -cd '0-9.' | cut -c1-20)
    case $new in '' | .* | *. | *.*.*) return 0 ;; esac
    [ "$new" = "$progress" ] || { progress=$new && told_progress=no; }
}

# All processes of the command: those of its session, and those that left it.
members() {
    for stat in /proc/[0-9]*; do
        p=${stat#/proc/}
        [ "$p" = $$ ] && continue
        { tr '\0' '\n' <"$stat/environ" | grep -q "^HAGGLE_MEMBER=$member\$"; } 2>/dev/null && printf '%s ' "$p"
    done
}

# Ends the command: asks, waits, and then makes it.
end_command() {
    [ -n "$pid" ] || return 0
    kill -TERM -"$pid" 2>/dev/null || kill -TERM "$pid" 2>/dev/null
    now_up
    until_up=$((up + ${HAGGLE_GRACE:-30}))
    while is_alive "$pid" && [ "$up" -lt "$until_up" ]; do
        nap 1
        now_up
    done
    kill -KILL -"$pid" 2>/dev/null
    for _ in 1 2 3; do
        rest=$(members)
        [ -n "$rest" ] || break
        # shellcheck disable=SC2086 # one word a process
        kill -KILL $rest 2>/dev/null
    done
    wait "$pid" 2>/dev/null
    pid=
}

# A process that ended and was not waited for is still a process, and no longer alive.
is_alive() {
    kill -0 "$1" 2>/dev/null || return 1
    what=
    { read -r what <"/proc/$1/stat"; } 2>/dev/null || return 0
    case ${what##*) } in Z* | X*) return 1 ;; esac
}

start_command() {
    member=${HAGGLE_RUN:-0}-$$-$seq
    # What is ours is not the command's: neither the key of our lines nor that of the instance.
    command=${HAGGLE_COMMAND:-}
    set -- env -u HAGGLE_KEY -u CONTAINER_API_KEY -u HAGGLE_CONTROL -u HAGGLE_COMMAND HAGGLE_MEMBER="$member"
    set -- "$@" HAGGLE_CHECKPOINT="$CHECKPOINT" HAGGLE_PROGRESS="${HAGGLE_PROGRESS:-}" sh -c "$command"
    has setsid && set -- setsid "$@"
    "$@" &
    pid=$!
}

# Asks the driver; what it says, in $said. When a GPU breaks it may never answer, and the one that waits
# for it cannot even be killed: it is left behind.
ask_driver() {
    said=
    [ "$WORK" != none ] || return 1
    nvidia-smi "--query-gpu=$1" --format=csv,noheader,nounits >"$WORK/smi" 2>/dev/null &
    asked=$!
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        is_alive "$asked" || break
        sleep 1
    done
    if is_alive "$asked"; then
        kill -KILL "$asked" 2>/dev/null
        return 1
    fi
    wait "$asked" && said=$(cat "$WORK/smi") && [ -n "$said" ]
}

# How many GPUs the driver lists, in $count; nothing where the image cannot ask it.
count_gpus() {
    count=
    has nvidia-smi && [ "$WORK" != none ] || return 0
    count=0
    ask_driver name && count=$(printf '%s\n' "$said" | grep -c .)
}

# Memory errors that cannot be corrected, in $errors: one number a GPU.
ecc_errors() {
    errors=
    [ "${count:-0}" -gt 0 ] && ask_driver ecc.errors.uncorrected.volatile.total && errors=$said
}

# Why a command that failed may have failed by its host: the driver lists fewer GPUs than when it began,
# or does not answer, or memory was found broken since.
gpu_fault() {
    [ "$exited" != 0 ] && [ "${gpus_before:-0}" -gt 0 ] || return 0
    count_gpus
    [ "${count:-0}" -lt "$gpus_before" ] && fault=gpu-lost && return 0
    ecc_errors
    case $errors in *[1-9]*) [ "$errors" = "$errors_before" ] || fault=gpu-ecc ;; esac
}

# Runs the command until it ends, or until it may not work any more. Its exit code in $exited.
run_command() {
    fault=
    count_gpus
    gpus_before=$count
    ecc_errors
    errors_before=$errors
    start_command
    say running
    heard=$up
    told_progress=yes
    while is_alive "$pid"; do
        nap "${HAGGLE_TICK:-2}"
        [ -n "$signalled" ] && return 1
        may_work "${HAGGLE_LOOK:-60}" || return 1
        now_up
        keep_beside
        read_progress
        if [ "$told_progress" = no ] || [ $((up - heard)) -ge 300 ]; then
            [ $((up - heard)) -ge "${HAGGLE_TELL:-30}" ] && say running && heard=$up && told_progress=yes
        fi
    done
    wait "$pid"
    exited=$?
    end_command
    return 0
}

# The outputs are uploaded, or they stay where they are and are told of all the same.
keep_outputs() { read_control && put_tree "$HAGGLE_OUTPUTS_DIR" outputs && printf '%s %s\n' "$manifest" "$size" >"$WORK/outputs.kept"; }

result() {
    read_progress
    keep_now
    gpu_fault
    kept='"outputs":null'
    if [ -n "${HAGGLE_OUTPUTS_DIR:-}" ] && [ -d "$HAGGLE_OUTPUTS_DIR" ]; then
        kept='"outputs":"here"'
        [ -n "$control" ] && say saving
        upload_outputs
    fi
    # One that wakes again has its outputs to bring away, and no work to do.
    [ "$exited" = 0 ] && [ -n "$control" ] && [ "$kept" = '"outputs":"here"' ] && (: >"$WORK/result") 2>/dev/null
    say result "$kept"
}

upload_outputs() {
    [ -n "$control" ] && [ "$WORK" != none ] || return 1
    doing=$state more=
    [ "$state" = result ] && more=$kept
    aside keep_outputs || return 1
    read -r manifest size <"$WORK/outputs.kept"
    kept="\"outputs\":{\"manifest\":\"$manifest\",\"bytes\":$size}"
}

# ---------------------------------------------------------------- from another machine's disk

# Behind the gate the marketplace copies to $HAGGLE_BROUGHT what another run left beside its directory. It
# counts once it is whole and that run's; then it is this run's own, and haggle may open the gate.
brought='' asked=-100000 came=''
bring() {
    [ -n "${HAGGLE_BROUGHT:-}" ] && [ -n "$KEPT" ] && [ "$WORK" != none ] || return 0
    if [ -z "$brought" ]; then
        # Where work was begun there is nothing to be brought.
        [ ! -e "$KEPT/begun" ] && try_machine || return 0
        waits='"waits":"copy"'
        doing=gate more="\"why\":\"hold\",$waits" behind=yes
        aside take
        code=$? behind=
        case $code in
        2) waits="$waits,\"trouble\":\"what was copied is not the checkpoint of that run\"" ;;
        3) waits="$waits,\"trouble\":\"the checkpoint cannot be unpacked\"" ;;
        esac
        [ "$came" = $code ] || asked=-100000
        came=$code
        know_brought && asked=-100000
    fi
    now_up
    if [ $((up - asked)) -ge 120 ]; then
        asked=$up
        say gate "\"why\":\"hold\",${brought:-$waits}"
    fi
}

know_brought() {
    { read -r from size <"$KEPT/brought"; } 2>/dev/null || return 1
    brought="\"brought\":{\"run\":\"${HAGGLE_FROM:-}\",\"manifest\":\"$from\",\"bytes\":$size}"
    know_kept
}

# take: 1: it is not there yet; 2: it is not what it should be; 3: it cannot be unpacked.
take() {
    # Files come whole, one after the other, in any order, and what is asked for twice comes twice.
    cp "$HAGGLE_BROUGHT/manifest" "$WORK/taken" 2>/dev/null || return 1
    run='' sum='' size=''
    read -r _ _ run sum size _ <"$WORK/taken"
    case $sum:$size in *[!0-9a-f:]* | :* | *:) return 2 ;; esac
    [ "$run" = "${HAGGLE_FROM:-}" ] || return 2
    signed=$(sign "${HAGGLE_FROM_KEY:-}" "$(sed '$d' "$WORK/taken" | sha_of)")
    [ "$(tail -n 1 "$WORK/taken")" = "signed $signed" ] || return 2
    tar=$HAGGLE_BROUGHT/$sum.tar
    [ -f "$tar" ] && [ "$(($(wc -c <"$tar")))" = "$size" ] && [ "$(sha_of "$tar")" = "$sum" ] || return 1
    rm -rf "$CHECKPOINT" 2>/dev/null
    mkdir -p "$CHECKPOINT" && (: >"$CHECKPOINT/.haggle-half") 2>/dev/null || return 3
    tar -C "$CHECKPOINT" -xf "$tar" 2>/dev/null || return 3
    is=$(list "$CHECKPOINT" | sha_of)
    [ "$is" = "$(sed '1d;$d' "$WORK/taken" | sha_of)" ] || return 2
    now_up
    room=$KEPT-$hundredths
    mkdir -p "$room" && { ln "$tar" "$room/tar" 2>/dev/null || cp "$tar" "$room/tar"; } || return 3
    from=$(sha_of "$WORK/taken")
    { printf 'haggle 1 %s %s %s\n' "${HAGGLE_RUN:-}" "$sum" "$size" && sed '1d;$d' "$WORK/taken"; } >"$room/manifest" || return 3
    stay "$room" || return 3
    printf '%s 0 %s %s\n' "$is" "$manifest" "$size" >"$WORK/kept.new" && mv "$WORK/kept.new" "$WORK/kept"
    rm -f "$CHECKPOINT/.haggle-half"
    printf '%s %s\n' "$from" "$size" >"$KEPT/brought.new" && mv "$KEPT/brought.new" "$KEPT/brought" || return 3
    rm -rf "$room" "$HAGGLE_BROUGHT"
}

# ---------------------------------------------------------------- its life

signalled=
trap 'signalled=yes' TERM INT

# Tries the machine, once in a start of the container.
fit=
try_machine() {
    if [ -z "$fit" ]; then
        fit=yes
        [ "${HAGGLE_PREFLIGHT:-1}" != 1 ] || preflight || fit=no
    fi
    [ $fit = yes ]
}

# Waits until it may work. Nobody may have wanted it for long: then it goes.
gate() {
    waited=
    until may_work "${HAGGLE_LOOK_GATE:-10}"; do
        [ "$waited" = "$why" ] || say gate "\"why\":\"$why\""
        waited=$why
        [ -n "$signalled" ] && exit 143
        if is_forgotten; then
            say forgotten
            destroy_self
        elif [ "$why" = else ] || [ "$why" = "done" ]; then
            # Another one has the work, or it is done: what woke by itself stops by itself.
            [ "$why" = else ] && stop_self
            [ "$why" = "done" ] && destroy_self
        elif [ "$why" = hold ]; then
            bring
        fi
        nap "${HAGGLE_TICK_GATE:-5}"
    done
}

linger() {
    now_up
    until_up=$((up + ${HAGGLE_LINGER:-86400}))
    tried=$up
    while [ "$up" -lt "$until_up" ] && may_work "${HAGGLE_LOOK:-60}"; do
        [ -n "$signalled" ] && exit 143
        nap "${HAGGLE_TICK:-2}"
        now_up
        # Storage that could not be reached may be back.
        if [ "$kept" = '"outputs":"here"' ] && [ $((up - tried)) -ge "${HAGGLE_AGAIN:-120}" ]; then
            tried=$up
            upload_outputs && say result "$kept"
        fi
    done
    say ended
    # Where nothing but this disk has the outputs, it is not for us to throw them away.
    while :; do
        if [ "$why" = "done" ] || { [ "$kept" != '"outputs":"here"' ] && [ -z "$unsaved" ]; }; then destroy_self; else stop_self; fi
        nap 60
    done
}

main() {
    find_tools
    find_room
    [ "$WORK" = none ] || rm -rf "$WORK"/checkpoint?.* "$WORK"/outputs.[0-9]* "$WORK"/restore.*
    [ -z "$KEPT" ] || rm -rf "$KEPT"-[0-9]*
    know_kept
    [ -z "$KEPT" ] || know_brought
    say boot "\"http\":\"$HTTP\",\"lacks\":$(text "${lacks# }")"
    gate
    if ! try_machine; then
        # haggle reads that and destroys it; if nobody does, the lease ends it.
        while may_work 60; do nap "${HAGGLE_TICK_GATE:-5}"; done
    fi
    while :; do
        gate
        if ! { { [ -e "$WORK/result" ] || inputs; } && restore; }; then
            [ -n "$signalled" ] && exit 143
            nap "${HAGGLE_AGAIN:-30}"
            continue
        fi
        if [ -e "$WORK/result" ]; then
            exited=0
            result
            linger
        elif run_command; then
            result
            linger
        fi
        say ending "\"why\":\"$why\""
        end_command
        ending=yes
        keep_now
        ending=
        [ -n "$signalled" ] && exit 143
    done
}

main
