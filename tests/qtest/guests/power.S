/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A boot sector that uses its machine's power: each time it is entered it counts that at BOOTS and
 * says 'A' on the serial port, then waits for a number at ORDER, clears it and does what it asks
 * for. 1: keyboard controller's reset, 2: port 0x92, 3: port 0xcf9, 4: three faults in a row,
 * 5: suspend to RAM, 6: power off. Real mode.
 */
        .set BOOTS, 0x600
        .set ORDER, 0x604
        .set COM1, 0x3f8
        .set PM_CONTROL, 0x604
        .set SLEEP_S3, 0x2400
        .set SLEEP_S5, 0x2000

        .code16
        .globl _start
_start: cli
        xorw    %ax, %ax
        movw    %ax, %ds
        incl    BOOTS
        movb    $'A', %al
        movw    $COM1, %dx
        outb    %al, %dx
wait:   movb    ORDER, %al
        testb   %al, %al
        jz      wait
        movb    $0, ORDER
        cmpb    $1, %al
        je      keyboard
        cmpb    $2, %al
        je      fast
        cmpb    $3, %al
        je      chipset
        cmpb    $4, %al
        je      fault
        movw    $PM_CONTROL, %dx
        cmpb    $5, %al
        movw    $SLEEP_S3, %ax
        je      sleep
        movw    $SLEEP_S5, %ax
sleep:  outw    %ax, %dx
        jmp     beyond
keyboard:
        movb    $0xfe, %al
        outb    %al, $0x64
        jmp     beyond
fast:   movb    $1, %al
        outb    %al, $0x92
        jmp     beyond
chipset:
        movw    $0xcf9, %dx
        movb    $6, %al
        outb    %al, %dx
        jmp     beyond
fault:  lidtl   nothing
        int3
/* Nothing executes this. */
beyond: incl    BEYOND
        jmp     beyond
        .set BEYOND, 0x608

nothing: .word  0
        .long   0

        .org    _start + 510
        .word   0xaa55
