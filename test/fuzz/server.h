/*-------------------------------------------------------------------------
 *
 * server.h
 *		See server.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef FUZZ_SERVER_H
#define FUZZ_SERVER_H

extern void fuzz_forget(void);
extern int	LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

#endif							/* FUZZ_SERVER_H */
