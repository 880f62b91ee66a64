// Comes before each file of ring's assembly, see .ci/build: it gives each function a section of its own, so that the
// linker can leave out those that nothing calls. Each is weak: one of that name in .ci/ring.c replaces it.
#ifdef __ASSEMBLER__
.macro .globl name
.section .text.\name, "ax", %progbits
.weak \name
.endm
#endif
