
# Devices, where a device is wanted; everything else as generated above.
_strait_with_devices() {
    local line=${COMP_LINE:0:COMP_POINT} word
    word=${line##*[[:space:]=,]}
    # bash takes a colon for the end of a word, so what is before the last one is there already.
    local colons=""
    [[ $word == *:* && $COMP_WORDBREAKS == *:* ]] && colons=${word%"${word##*:}"}
    if [[ $word != -* && $line =~ [[:space:]](host[[:space:]]+(list|ls|doctor|bind|detach|restore|reattach|unbind|unset-override|set-override|vf)[[:space:]]|(--device|-d|--device=|host=)[[:space:]]*[^[:space:]]*$) ]]; then
        local names
        names=$(strait host names 2>/dev/null | cut -f 1)
        COMPREPLY=($(compgen -W "$names" -- "$word"))
        COMPREPLY=("${COMPREPLY[@]#"$colons"}")
        return 0
    fi
    _strait "$@"
}
complete -F _strait_with_devices -o nosort -o bashdefault -o default strait
