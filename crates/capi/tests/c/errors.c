/* What is refused, in which words and with which errno. */

#include "check.h"

/* As long as the longest request here: libnbd fills it with zeroes before it looks at the rest. */
static char buf[128 << 20];

static void
before (struct nbd_handle *h)
{
  SHOW (nbd_get_size (h));
  SHOW (nbd_pread (h, buf, 512, 0, 0));
  SHOW (nbd_aio_pwrite (h, buf, 512, 0, NBD_NULL_COMPLETION, 0));
  SHOW (nbd_flush (h, 0));
  SHOW (nbd_is_read_only (h));
  SHOW (nbd_aio_in_flight (h));
  SHOW (nbd_aio_get_fd (h));
  SHOW (nbd_aio_notify_read (h));
  SHOW (nbd_aio_notify_write (h));
  SHOW (nbd_poll (h, 0));
  SHOW (nbd_opt_go (h));
  SHOW (nbd_shutdown (h, 0));
  SHOW (nbd_aio_disconnect (h, 0));
  SHOW (nbd_kill_subprocess (h, 0));
  SHOW (nbd_aio_peek_command_completed (h));
  SHOW (nbd_get_meta_context (h, 0) == NULL);
  SHOW (nbd_set_tls (h, 7));
  SHOW (nbd_set_handshake_flags (h, 0x1000));
  SHOW (nbd_set_uri_allow_tls (h, -3));
  SHOW (nbd_set_uri_allow_transports (h, 0x1000));
}

static void
names (struct nbd_handle *h)
{
  char *long_name = malloc (5001);

  memset (long_name, 'x', 5000);
  long_name[5000] = '\0';
  SHOW (nbd_set_export_name (h, long_name));
  SHOW (nbd_add_meta_context (h, long_name));
  SHOW (nbd_set_handle_name (h, long_name));
  free (long_name);
}

static void
connected (struct nbd_handle *h)
{
  SHOW (nbd_set_export_name (h, "late"));
  SHOW (nbd_set_tls (h, LIBNBD_TLS_ALLOW));
  SHOW (nbd_connect_unix (h, "/nowhere"));
  SHOW (nbd_opt_abort (h));
  SHOW (nbd_set_opt_mode (h, true));
  SHOW (nbd_get_block_size (h, 9));
  SHOW (nbd_shutdown (h, 1));
  SHOW (nbd_pread (h, buf, 512, 0, 0x100));
  SHOW (nbd_pread (h, buf, 512, 1 << 20, 0));
  SHOW (nbd_pread (h, buf, 512, UINT64_MAX, 0));
  SHOW (nbd_pread (h, buf, 0, 0, 0));
  SHOW (nbd_pread (h, buf, (size_t) 128 << 20, 0, 0));
  SHOW (nbd_pwrite (h, buf, (size_t) 128 << 20, 0, 0));
  SHOW (nbd_pwrite (h, buf, 512, 0, 0));
  SHOW (nbd_flush (h, LIBNBD_CMD_FLAG_FUA));
  SHOW (nbd_trim (h, 512, 0, 0));
  SHOW (nbd_zero (h, 512, 0, 0));
  SHOW (nbd_cache (h, 512, 0, 0));
  SHOW (nbd_can_meta_context (h, LIBNBD_CONTEXT_BASE_ALLOCATION));
}

int
main (int argc, char *argv[])
{
  struct nbd_handle *h = create ();

  if (argc != 2)
    return 2;
  printf ("before any: %s %d\n", nbd_get_error () ? "text" : "none", nbd_get_errno ());
  before (h);
  names (h);
  MUST (nbd_connect_unix (h, argv[1]));
  connected (h);
  /* A call that succeeds leaves the error of the one before. */
  SHOW (nbd_get_size (h));
  printf ("still %d\n", nbd_get_errno ());
  MUST (nbd_shutdown (h, 0));
  SHOW (nbd_pread (h, buf, 512, 0, 0));
  SHOW (nbd_aio_is_closed (h));
  SHOW (nbd_shutdown (h, 0));
  SHOW (nbd_poll (h, 0));
  SHOW (nbd_get_size (h));
  nbd_close (h);

  h = create ();
  SHOW (nbd_connect_unix (h, "/nowhere/at/all"));
  SHOW (nbd_aio_is_dead (h));
  SHOW (nbd_connect_unix (h, argv[1]));
  SHOW (nbd_pread (h, buf, 512, 0, 0));
  SHOW (nbd_aio_in_flight (h));
  SHOW (nbd_get_size (h));
  nbd_close (h);
  nbd_close (NULL);
  return 0;
}
