/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A boot sector that makes memory dirty in a way that can be checked: for ever, it increments one
 * byte in every page from FIRST to LAST, in order. At each moment the pages before some point are
 * ahead of those after it by one. To the serial port goes an 'A' at the start and a 'B' for each
 * round, slowly enough for a log to stay small.
 *
 * FIRST, LAST (page numbers) and ROUNDS (between two 'B') are given to the assembler. BOOTS counts
 * how often it was entered.
 */
        .set BOOTS, 0x600
        .set COM1, 0x3f8
        .set COM1_LSR, COM1 + 5
        .set LSR_EMPTY, 0x20

        .include "flat.inc"
        enter_flat
        incl    BOOTS
        movb    $'A', %al
        call    print
more:   movl    $ROUNDS, %ecx
round:  movl    $(FIRST << 12), %ebx
page:   incb    (%ebx)
        addl    $4096, %ebx
        cmpl    $(LAST << 12), %ebx
        jb      page
        decl    %ecx
        jnz     round
        movb    $'B', %al
        call    print
        jmp     more

/* Waits for room, as a driver would: a character is never lost. */
print:  movb    %al, %ah
        movw    $COM1_LSR, %dx
busy:   inb     %dx, %al
        testb   $LSR_EMPTY, %al
        jz      busy
        movb    %ah, %al
        movw    $COM1, %dx
        outb    %al, %dx
        ret

        flat_tables

        boot_signature
