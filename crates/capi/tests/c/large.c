/* The longest requests, and longer ones. The server has 200 MiB. */

#include "check.h"

#define MIB ((size_t) 1 << 20)

static char out[32 << 20];
static char in[128 << 20];

int
main (int argc, char *argv[])
{
  struct nbd_handle *h = create ();
  size_t i, wrong = 0;

  if (argc != 2)
    return 2;
  for (i = 0; i < sizeof out; ++i)
    out[i] = (char) (i % 251 + 1);
  MUST (nbd_connect_unix (h, argv[1]));
  SHOW (nbd_pwrite (h, out, 32 * MIB, 0, 0));
  SHOW (nbd_pwrite (h, out, 32 * MIB, 32 * MIB, LIBNBD_CMD_FLAG_FUA));
  SHOW (nbd_pread (h, in, 64 * MIB, 0, 0));
  for (i = 0; i < 64 * MIB; ++i)
    wrong += in[i] != out[i % sizeof out];
  printf ("wrong %zu\n", wrong);
  SHOW (nbd_pread (h, in, 64 * MIB + 1, 0, 0));
  SHOW (nbd_pwrite (h, in, 32 * MIB + 1, 0, 0));
  SHOW (nbd_pwrite (h, in, 64 * MIB + 1, 0, 0));
  SHOW (nbd_zero (h, 200 * MIB, 0, 0));
  SHOW (nbd_trim (h, 200 * MIB, 0, 0));
  SHOW (nbd_pread (h, in, 1, 31 * MIB, 0));
  printf ("zero %d\n", in[0] == 0);
  /* Longer than a request of 32 bits says. */
  SHOW (nbd_zero (h, UINT64_C (1) << 33, 0, 0));
  SHOW (nbd_shutdown (h, 0));
  nbd_close (h);
  return 0;
}
