# Made from the definitions of the command line by tests/generated.

# The addresses of the datagram sockets that are bound now, each with a tab and its state and owner.
_udgram_addresses() {
    "$1" ls --candidates 2>/dev/null
}

# What can be sent to: live sockets, whichever way their pathnames are written in $2, and directories, which may
# have some.
_udgram_peers() {
    local -a live files
    local file socket
    mapfile -t live < <(_udgram_addresses "$1")
    ((${#live[@]})) && printf '%s\n' "${live[@]}"
    mapfile -t files < <(compgen -f -- "$2")
    for file in "${files[@]}"; do
        if [[ -d $file ]]; then
            printf '%s\n' "$file"
        elif [[ -S $file ]]; then
            for socket in "${live[@]}"; do
                if [[ $file -ef ${socket%%$'\t'*} ]]; then
                    printf '%s\t%s\n' "$file" "${socket#*$'\t'}"
                    break
                fi
            done
        fi
    done
}

# The descriptors that udgram would inherit, or those of the process named in $1, each with a tab and what it is.
_udgram_descriptors() {
    local descriptor
    if [[ $1 == *:* ]]; then
        for descriptor in "/proc/${1%%:*}/fd/"*; do
            [[ -L $descriptor ]] || continue
            printf '%s:%s\t%s\n' "${1%%:*}" "${descriptor##*/}" "$(readlink "$descriptor" 2>/dev/null)"
        done
    else
        sh -c 'for descriptor in /proc/$$/fd/*; do [ -e "$descriptor" ] && printf "%s\t%s\n" "${descriptor##*/}" "$(readlink "$descriptor")"; done'
    fi
}

_udgram_sockopts='acceptconn
bindtodevice
bindtoifindex
bpf_extensions
broadcast
buf_lock
busy_poll
cookie
debug
domain
dontroute
error
get_filter
incoming_cpu
incoming_napi_id
keepalive
linger
lock_filter
mark
max_pacing_rate
meminfo
netns_cookie
nofcs
no_check
oobinline
passcred
passpidfd
passrights
passsec
peek_off
peercred
peergroups
peerpidfd
peersec
prefer_busy_poll
priority
protocol
rcvbuf
rcvbufforce
rcvlowat
rcvmark
rcvpriority
rcvtimeo
reserve_mem
reuseaddr
reuseport
rxq_ovfl
select_err_queue
sndbuf
sndbufforce
sndlowat
sndtimeo
timestamp
timestamping
timestampns
type
wifi_status
zerocopy'

_udgram() {
    local line=${COMP_LINE:0:COMP_POINT} word command='' option='' positionals=0 dashes=''
    local -a words
    read -ra words <<<"$line"
    local current=''
    if [[ $line != *[[:blank:]] ]]; then
        current=${words[-1]}
        unset 'words[-1]'
    fi
    for word in "${words[@]:1}"; do
        if [[ $dashes && $word == @(udgram|*/udgram) && $command:$positionals == @(recv|exec):0 ]]; then
            # The command line of the udgram that runs as CMD.
            local COMP_LINE=udgram${line#*" -- $word"}
            local COMP_POINT=${#COMP_LINE}
            _udgram "$@"
            return
        fi
        if [[ $option ]]; then
            option=''
        elif [[ $dashes || $word != -?* ]]; then
            if [[ $command ]]; then ((positionals += 1)); else command=$word; fi
        elif [[ $word == -- ]]; then
            dashes=yes
            positionals=0
        else
            case $word in
                --*=*) ;;
                --allow-uid | --ancillary-bufsize | --bind | --color | --connect | --count | --exec | --fd | --mode | --owner | --pipe | --protocol | --queue | --rate | --socket-fd | --sockopt | --timeout | --to | --window) option=$word ;;
                --*) ;;
                -*[bcmnopst])
                    # The last of a cluster, unless one before it takes the rest as its value.
                    [[ ${word%?} == *[bcmnopst]* ]] || option=-${word: -1}
                    ;;
            esac
        fi
        case $word in --to | --to=* | --socket-fd | --socket-fd=* | -s*) [[ $command == send ]] && positionals=1 ;; esac
    done

    local value=$current
    if [[ ! $option && ! $dashes && $current == --*=* ]]; then
        option=${current%%=*}
        value=${current#*=}
    fi
    local kind=none
    if [[ $option ]]; then
        case $command$option in
            recv--fd) ;;
            *--bind | *-b) kind=address ;;
            *--fd | *--notify) kind=descriptor ;;
            *--connect | *--to | *-c) kind=peer ;;
            *--protocol | *-p) kind=protocol ;;
            *--socket-fd | *-s) kind=socket ;;
            *--sockopt | *-o) kind=sockopt ;;
            *--allow-uid) kind=user ;;
            *--color) kind=when ;;
        esac
    elif [[ $dashes ]]; then
        case $command:$positionals in
            recv:0 | exec:0) kind=program ;;
            *) kind='file' ;;
        esac
    elif [[ $current == -* ]]; then
        kind=option
    else
        case $command:$positionals in
            :*) kind='command' ;;
            send:0) kind=peer ;;
            recv:0) kind=address ;;
            listen:0) kind=address ;;
            iter:0) kind=address ;;
            talk:0) kind=peer ;;
            relay:0) kind=address ;;
            relay:*) kind=peer ;;
            ls:*) kind=address ;;
            sockopt:*) kind=name ;;
            completions:0) kind=shell ;;
            help:0) kind=command ;;
        esac
    fi

    local -a candidates=()
    case $kind in
        address)
            compopt -o filenames 2>/dev/null
            mapfile -t candidates < <(_udgram_addresses "$1"; compgen -f -- "$value")
            ;;
        peer)
            compopt -o filenames 2>/dev/null
            mapfile -t candidates < <(_udgram_peers "$1" "$value")
            ;;
        socket)
            compopt -o filenames 2>/dev/null
            mapfile -t candidates < <(_udgram_descriptors "$value"; _udgram_peers "$1" "$value")
            ;;
        descriptor) mapfile -t candidates <<<"$(_udgram_descriptors "$value")" ;;
        sockopt | name)
            compopt -o nospace 2>/dev/null
            mapfile -t candidates <<<"$_udgram_sockopts"
            if [[ $value == S* ]]; then
                # The whole names, which are in capital letters.
                candidates=("${candidates[@]/#/SO_}")
                candidates=("${candidates[@]^^}")
            fi
            if [[ $kind == name ]]; then
                candidates+=(local peer queue)
            else
                candidates=("${candidates[@]/%/=}")
            fi
            ;;
        user) mapfile -t candidates < <(compgen -u -- "$value") ;;
        program) mapfile -t candidates < <(compgen -c -- "$value") ;;
        file)
            compopt -o filenames 2>/dev/null
            mapfile -t candidates < <(compgen -f -- "$value")
            ;;
        option)
            case $command in
                '') candidates=(--help --quiet --verbose --version) ;;
                'send') candidates=(--bind --color --creds --drop --envelope --fd --help --mode --null --owner --pace --protocol --quiet --rate --replace --reply --socket-fd --sockopt --stats --timeout --to --verbose --wait --window) ;;
                'recv') candidates=(--ancillary-bufsize --color --connect --count --creds --envelope --fd --help --mode --null --owner --protocol --queue --quiet --replace --socket-fd --sockopt --stats --timeout --verbose) ;;
                'listen') candidates=(--allow-uid --ancillary-bufsize --color --connect --count --creds --echo --envelope --exec --help --mode --null --owner --peek --pipe --protocol --queue --quiet --replace --socket-fd --sockopt --stats --timeout --verbose) ;;
                'iter') candidates=(--ancillary-bufsize --color --connect --count --creds --envelope --help --mode --null --owner --peek --protocol --quiet --replace --socket-fd --sockopt --stats --timeout --verbose) ;;
                'talk') candidates=(--color --envelope --help --null --protocol --quiet --socket-fd --sockopt --stats --timeout --verbose --wait) ;;
                'relay') candidates=(--color --help --mode --owner --protocol --quiet --replace --sockopt --stats --timeout --verbose) ;;
                'ls') candidates=(--all --color --help --quiet --verbose) ;;
                'sockopt') candidates=(--bind --color --connect --help --mode --owner --quiet --replace --socket-fd --verbose) ;;
                'exec') candidates=(--bind --color --connect --envelope --help --mode --notify --owner --protocol --queue --quiet --replace --socket-fd --sockopt --timeout --verbose) ;;
                'completions') candidates=(--help --quiet --verbose) ;;
                'help') candidates=(--help --quiet --verbose) ;;
            esac
            ;;
        command) candidates=(send recv listen iter talk relay ls sockopt exec completions help) ;;
        protocol) candidates=(json text raw hex base64 cbor msgpack fields syslog) ;;
        when) candidates=(auto always never) ;;
        shell) candidates=(bash zsh fish elvish powershell) ;;
    esac
    # What stands before the word as readline has it (after '=' or ':') is not completed again.
    local kept=${value%"$2"}
    COMPREPLY=()
    local -A seen=()
    for word in "${candidates[@]}"; do
        [[ $word == "$value"* && ! ${seen[${word%%$'\t'*}]} ]] || continue
        seen[${word%%$'\t'*}]=yes
        COMPREPLY+=("${word#"$kept"}")
    done
    # Descriptions are shown in a list only: what is inserted must not have them.
    local index
    for index in "${!COMPREPLY[@]}"; do
        word=${COMPREPLY[index]}
        if [[ $word == *$'\t'* && ${#COMPREPLY[@]} -gt 1 && ${COMP_TYPE:-9} == @(33|63) ]]; then
            COMPREPLY[index]="${word%%$'\t'*}  (${word#*$'\t'})"
        else
            COMPREPLY[index]=${word%%$'\t'*}
        fi
    done
}

complete -F _udgram udgram
