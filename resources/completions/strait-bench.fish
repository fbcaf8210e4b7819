
# Devices with what they are; what is generated above does not hold while a value is missing.
complete -c strait-bench -l device -d "A device of the host" -x -a "(strait host names 2>/dev/null)"
