
# What strait-bench takes, as it says itself, for the words behind `strait bench`.
_strait_bench_words() {
    [[ $(type -t _strait_bench_with_devices) ]] || eval "$(strait bench completions bash 2>/dev/null)"
    [[ $(type -t _strait_bench_with_devices) ]] || return
    local line=${COMP_LINE:0:COMP_POINT}
    local COMP_LINE="strait-bench ${line#*[[:space:]]bench[[:space:]]}"
    local COMP_POINT=${#COMP_LINE} COMP_CWORD=$((COMP_CWORD - 1)) COMP_WORDS=(strait-bench "${COMP_WORDS[@]:2}")
    _strait_bench_with_devices strait-bench "${@:2}"
}

# Devices where a device is wanted, drivers where a driver is, guests and what is asked of them behind ctl; everything
# else as generated above.
_strait_with_devices() {
    local line=${COMP_LINE:0:COMP_POINT} word names=""
    local asked="list info stats pause resume powerdown reset quit attach detach"
    word=${line##*[[:space:]=,]}
    # bash takes a colon for the end of a word, so what is before the last one is there already.
    local colons=""
    [[ $word == *:* && $COMP_WORDBREAKS == *:* ]] && colons=${word%"${word##*:}"}
    if [[ $line =~ ^[^[:space:]]+[[:space:]]+bench[[:space:]] ]]; then
        _strait_bench_words "$@"
        return
    elif [[ $line =~ [[:space:]]host[[:space:]].*--driver[[:space:]=]+[^[:space:]]*$ ]]; then
        names=$(ls /sys/bus/pci/drivers 2>/dev/null)
    elif [[ $line =~ [[:space:]]host[[:space:]]+vf[[:space:]]+[^-[:space:]][^[:space:]]*[[:space:]] && $word != -* ]]; then
        # How many virtual functions: no name.
        COMPREPLY=()
        return
    elif [[ $line =~ [[:space:]]ctl[[:space:]]+[^-/[:space:]]*$ ]]; then
        names="$(strait ctl names 2>/dev/null | cut -f 1) $asked"
    elif [[ $line =~ [[:space:]]ctl[[:space:]]+([^-[:space:]]+)[[:space:]]+[^-[:space:]]*$ && " $asked " != *" ${BASH_REMATCH[1]} "* ]]; then
        names=$asked
    elif [[ $word == -* || $line =~ [[:space:]]host[[:space:]].*[[:space:]](--class|--mac|--vlan|--dma-entries|--memory|-m|--address-spaces)[[:space:]=]+[^[:space:]]*$ ]]; then
        :
    elif [[ $line =~ [[:space:]](host[[:space:]]+(list|ls|doctor|bind|detach|restore|reattach|unbind|unset-override|set-override|vf)[[:space:]]|(--device|-d|--device=|host=|attach|detach)[[:space:]]*[^[:space:]]*$) ]]; then
        names=$(strait host names 2>/dev/null | cut -f 1)
    fi
    [[ $names ]] || { _strait "$@"; return; }
    COMPREPLY=($(compgen -W "$names" -- "$word"))
    # An address may be typed without its domain, which is 0000 on most machines.
    [[ ${COMPREPLY[*]} ]] || COMPREPLY=($(compgen -W "${names//0000:/}" -- "$word"))
    COMPREPLY=("${COMPREPLY[@]#"$colons"}")
}
complete -F _strait_with_devices -o nosort -o bashdefault -o default strait
