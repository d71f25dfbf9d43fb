/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A 32-bit kernel for -kernel. It stores what its loader handed over, then increments one byte in
 * every page from FIRST to LAST, for ever. The form is the assembler's symbol:
 *
 *   FLAT  a multiboot header with addresses, for a file without any of its own
 *   ELF   a multiboot header without
 *   PVH   no header, but the note that names the entry
 */
        .set    ENTERED, 0x600          /* how often, and with which EAX and EBX */
        .set    MAGIC, 0x604
        .set    INFO, 0x608
        .set    MULTIBOOT, 0x1badb002
        .set    HAS_ADDRESSES, 0x10000
        .set    XEN_ELFNOTE_PHYS32_ENTRY, 18

        .code32
        .text
begin:
.if FLAT
        .long   MULTIBOOT, HAS_ADDRESSES, -(MULTIBOOT + HAS_ADDRESSES)
        .long   begin, begin, end, end, _start
.endif
.if ELF
        .long   MULTIBOOT, 0, -MULTIBOOT
.endif
        .globl  _start
_start: incl    ENTERED
        movl    %eax, MAGIC
        movl    %ebx, INFO
round:  movl    $(FIRST << 12), %ecx
page:   incb    (%ecx)
        addl    $4096, %ecx
        cmpl    $(LAST << 12), %ecx
        jb      page
        jmp     round
end:

.if PVH
        .section .note, "a", @note
        .long   4, 4, XEN_ELFNOTE_PHYS32_ENTRY
        .asciz  "Xen"
        .long   _start
.endif
