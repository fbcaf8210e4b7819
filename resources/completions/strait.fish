
# Devices with what they are.
complete -c strait -n "__fish_seen_subcommand_from host; and __fish_seen_subcommand_from list ls doctor bind detach restore reattach unbind unset-override set-override vf" -f -a "(strait host names 2>/dev/null)"
complete -c strait -n "__fish_seen_subcommand_from run" -s d -l device -d "A device of the host" -x -a "(strait host names 2>/dev/null)"

# Guests with how they stand, then devices.
complete -c strait -n "__fish_seen_subcommand_from ctl; and not __fish_seen_subcommand_from list ls info stats pause resume powerdown reset quit attach detach" -f -a "(strait ctl names 2>/dev/null)"
complete -c strait -n "__fish_seen_subcommand_from ctl; and __fish_seen_subcommand_from attach detach" -f -a "(strait host names 2>/dev/null)"

# What strait-bench takes, as it says itself.
function __strait_bench
    test -n "$(complete -c strait-bench)"; or strait bench completions fish 2>/dev/null | source
    set -l typed (commandline -opc)
    set -l word (commandline -ct)
    set -l at (contains -i bench $typed)
    complete -C (string join -- " " strait-bench $typed[(seq (math $at + 1) (count $typed))] "$word")
end
complete -c strait -n "__fish_seen_subcommand_from bench" -f -a "(__strait_bench)"
