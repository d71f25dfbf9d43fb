/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A boot sector that works with the software device at BAR (given to the assembler), whose MSI-X
 * vector 0 the test has aimed at VECTOR of this CPU. For ever: it has the device fill the page at
 * DMA_PAGE with the number of the round and interrupt it then; it waits for the interrupt, and
 * compares the page's first and last word. It also keeps the number in the plain memory of the
 * device's BAR and compares that in the next round. An interrupt that gets lost ends the counting; a
 * write that gets lost is counted at WRONG. Then it increments one byte in every page from FIRST to
 * LAST (page numbers, given as well), in order.
 */
        .set ROUNDS, 0x600
        .set INTERRUPTS, 0x604
        .set WRONG, 0x608
        .set IDT, 0x1000
        .set DMA_PAGE, 0x10000
        .set VECTOR, 0x40
        .set LAPIC, 0xfee00000
        .set LAPIC_EOI, LAPIC + 0xb0
        .set LAPIC_SPURIOUS, LAPIC + 0xf0
        .set DMA_IOVA, BAR + 0x40
        .set DMA_BYTES, BAR + 0x48
        .set DMA_VALUE, BAR + 0x4c
        .set DMA_COMMAND, BAR + 0x50
        .set FILL_AND_RAISE_0, 0x101
        .set BAR_MEMORY, BAR + 0x1000

        .include "flat.inc"
        enter_flat
        movl    $0x7c00, %esp
        movb    $0xff, %al              /* both PICs masked */
        outb    %al, $0x21
        outb    %al, $0xa1
        movl    $handler, %eax
        movw    %ax, IDT + 8 * VECTOR
        movw    $8, IDT + 8 * VECTOR + 2
        movw    $0x8e00, IDT + 8 * VECTOR + 4
        shrl    $16, %eax
        movw    %ax, IDT + 8 * VECTOR + 6
        lidtl   vectors
        movl    $0x1ff, LAPIC_SPURIOUS
        movl    $DMA_PAGE, DMA_IOVA
        movl    $0, DMA_IOVA + 4
        movl    $4096, DMA_BYTES
        sti

round:  movl    ROUNDS, %esi
        cmpl    %esi, BAR_MEMORY
        je      kept
        incl    WRONG
kept:   incl    %esi
        movl    %esi, ROUNDS
        movl    %esi, BAR_MEMORY
        movl    %esi, DMA_VALUE
        movl    $FILL_AND_RAISE_0, DMA_COMMAND
wait:   cmpl    %esi, INTERRUPTS
        jne     wait
        cmpl    %esi, DMA_PAGE
        jne     wrong
        cmpl    %esi, DMA_PAGE + 4092
        je      count
wrong:  incl    WRONG
count:  movl    $(FIRST << 12), %ebx
page:   incb    (%ebx)
        addl    $4096, %ebx
        cmpl    $(LAST << 12), %ebx
        jb      page
        jmp     round

handler:
        incl    INTERRUPTS
        movl    $0, LAPIC_EOI
        popl    %edi                    /* as iret, which not every KVM in software can do here */
        addl    $4, %esp
        popfl
        jmp     *%edi

        flat_tables
vectors:
        .word   8 * (VECTOR + 1) - 1
        .long   IDT

        boot_signature
