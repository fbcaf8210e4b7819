//! A graphics card and its sound.

use anyhow::{Result, ensure};

use super::{controller_of, take};
use crate::guest::{Guest, number, says};
use crate::lab::devices::{SOUND, VGA};
use crate::scenario::Scenario;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(
        "media",
        "a graphics card with bochs-drm shows a picture, a sound card plays two seconds",
        240,
        |lab| {
            lab.run(&take(lab, &[VGA.at(), SOUND.at()])?, |guest| {
                picture(guest)?;
                sound(guest)
            })
        },
    )
        .full()]
}

/// A picture in the frame buffer, as the card has it: its memory is looked at past its driver.
fn picture(guest: &mut Guest<'_>) -> Result<()> {
    guest.sh("load bochs; wait_until 30 test -c /dev/fb0 || fail there is no frame buffer")?;
    says(guest, "driver_of /sys/class/graphics/fb0/device", "bochs-drm")?;
    guest.sh(
        "for console in /sys/class/vtconsole/vtcon*; do
             ! grep -q 'frame buffer' $console/name || echo 0 > $console/bind
         done
         dd if=/dev/urandom of=/run/picture bs=4096 count=512 2> /dev/null
         cat /run/picture > /dev/fb0
         memory=$(bar /sys/class/graphics/fb0/device 0)
         drawn() {
             for at in 0x80000 0xfff00 0x1ffffc; do
                 word=$(od -A n -t x4 -j $((at)) -N 4 /run/picture | tr -d ' ')
                 [ $(($(devmem $((memory + at)) 32))) = $((0x$word)) ] || return 1
             done
         }
         wait_until 20 drawn || fail the picture does not reach the card",
    )?;
    Ok(())
}

/// Interrupts of the sound card so far.
const INTERRUPTS: &str = "sed -n '/snd_hda_intel/s/^ *[0-9]*: *\\([0-9]*\\) .*/\\1/p' /proc/interrupts | head -n 1";

/// Two seconds of noise, and the interrupts it took.
fn sound(guest: &mut Guest<'_>) -> Result<()> {
    guest.sh(
        "load snd_hda_codec_generic snd_pcm_oss snd_hda_intel
         wait_until 30 test -c /dev/dsp || fail there is no sound device",
    )?;
    let codec = guest.sh("sed -n 's/^Codec: //p' /proc/asound/card0/codec#*")?;
    ensure!(!codec.is_empty(), "The sound card has no codec");
    let before = number(guest, INTERRUPTS)?;
    guest.sh("timeout 60 dd if=/dev/urandom of=/dev/dsp bs=4096 count=4 2> /dev/null")?;
    let taken = number(guest, INTERRUPTS)? - before;
    ensure!(taken >= 2, "Two seconds of sound took {taken} interrupts");
    says(guest, &controller_of("snd_hda_intel"), "PCI-MSI")
}
