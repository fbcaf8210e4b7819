
# Devices behind --device; everything else as generated above.
_strait_bench_with_devices() {
    local line=${COMP_LINE:0:COMP_POINT} word colons=""
    word=${line##*[[:space:]=]}
    [[ $line =~ [[:space:]]--device[[:space:]=]+[^[:space:]]*$ ]] || { _strait__bench "$@"; return; }
    # bash takes a colon for the end of a word, so what is before the last one is there already.
    [[ $word == *:* && $COMP_WORDBREAKS == *:* ]] && colons=${word%"${word##*:}"}
    local names
    names=$(strait host names 2>/dev/null | cut -f 1)
    COMPREPLY=($(compgen -W "$names" -- "$word"))
    # An address may be typed without its domain, which is 0000 on most machines.
    [[ ${COMPREPLY[*]} ]] || COMPREPLY=($(compgen -W "${names//0000:/}" -- "$word"))
    COMPREPLY=("${COMPREPLY[@]#"$colons"}")
}
complete -F _strait_bench_with_devices -o nosort -o bashdefault -o default strait-bench
