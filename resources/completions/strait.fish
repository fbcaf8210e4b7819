
# Devices with what they are.
complete -c strait -n "__fish_seen_subcommand_from host; and __fish_seen_subcommand_from list ls doctor bind detach restore reattach unbind unset-override set-override vf" -f -a "(strait host names 2>/dev/null)"
complete -c strait -n "__fish_seen_subcommand_from run" -s d -l device -x -a "(strait host names 2>/dev/null)"

# Guests with how they stand, then devices.
complete -c strait -n "__fish_seen_subcommand_from ctl; and not __fish_seen_subcommand_from list ls info stats pause resume powerdown reset quit attach detach" -f -a "(strait ctl names 2>/dev/null)"
complete -c strait -n "__fish_seen_subcommand_from ctl; and __fish_seen_subcommand_from attach detach" -f -a "(strait host names 2>/dev/null)"
