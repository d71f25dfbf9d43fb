/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A boot sector that works with QEMU's "edu" device at BAR (given to the assembler), the interrupt
 * pin of which leads to INPUT, 10 or 11. For ever: it counts a round, has the device interrupt it and
 * waits for that. The handler asks the device what it wants, tells it that it is done, and counts.
 * An interrupt that the device did not ask for is counted at WRONG.
 */
        .set ROUNDS, 0x600
        .set INTERRUPTS, 0x604
        .set WRONG, 0x608
        .set IDT, 0x1000
        .set FIRST_VECTOR, 0x40         /* of the second PIC, whose inputs are 8 to 15 */
        .set VECTOR, FIRST_VECTOR + INPUT - 8
        .set EDU_STATUS, BAR + 0x24
        .set EDU_RAISE, BAR + 0x60
        .set EDU_ACKNOWLEDGE, BAR + 0x64

        .include "flat.inc"
        enter_flat
        movl    $0x7c00, %esp
        movb    $0x11, %al              /* both PICs anew */
        outb    %al, $0x20
        outb    %al, $0xa0
        movb    $FIRST_VECTOR - 8, %al
        outb    %al, $0x21
        movb    $FIRST_VECTOR, %al
        outb    %al, $0xa1
        movb    $4, %al
        outb    %al, $0x21
        movb    $2, %al
        outb    %al, $0xa1
        movb    $1, %al
        outb    %al, $0x21
        outb    %al, $0xa1
        movb    $0xff & ~4, %al         /* the second PIC and nothing else */
        outb    %al, $0x21
        movb    $0xff & ~(1 << (INPUT - 8)), %al
        outb    %al, $0xa1
        movw    $0x4d1, %dx             /* level-triggered */
        movb    $1 << (INPUT - 8), %al
        outb    %al, %dx
        movl    $IDT + 8 * (FIRST_VECTOR - 8), %edi
        movl    $16, %ecx
fill:   movl    $(8 << 16) + spurious, (%edi)
        movl    $0x8e00, 4(%edi)
        addl    $8, %edi
        loop    fill
        movw    $handler, IDT + 8 * VECTOR
        lidtl   vectors
        movl    EDU_STATUS, %eax        /* what its last user left */
        movl    %eax, EDU_ACKNOWLEDGE
        sti

round:  incl    ROUNDS
        movl    ROUNDS, %esi
        movl    $1, EDU_RAISE
wait:   cmpl    %esi, INTERRUPTS
        jne     wait
        jmp     round

handler:
        movl    EDU_STATUS, %eax
        testl   %eax, %eax
        jnz     wanted
        incl    WRONG
        jmp     over
wanted: movl    %eax, EDU_ACKNOWLEDGE
        incl    INTERRUPTS
over:   movb    $0x20, %al
        outb    %al, $0xa0
        outb    %al, $0x20
        iretl

/* An input that fell before a CPU took its interrupt: the second PIC does not know of one. */
spurious:
        movb    $0x20, %al
        outb    %al, $0x20
        iretl

        flat_tables
vectors:
        .word   8 * (FIRST_VECTOR + 8) - 1
        .long   IDT

        boot_signature
