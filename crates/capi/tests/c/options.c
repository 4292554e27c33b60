/* Option mode: listing, asking, failing, and going at last. The server has two exports. */

#include "check.h"

static int
on_export (void *user_data, const char *name, const char *description)
{
  printf ("  %s \"%s\" \"%s\"\n", (char *) user_data, name, description);
  return 0;
}

static int
on_context (void *user_data, const char *name)
{
  printf ("  %s %s\n", (char *) user_data, name);
  return 0;
}

static int
on_completion (void *user_data, int *error)
{
  printf ("  %s completed, error %d\n", (char *) user_data, *error);
  return 1;
}

static void
on_free (void *user_data)
{
  printf ("  %s freed\n", (char *) user_data);
}

#define EXPORTS ((nbd_list_callback) { on_export, "export", on_free })
#define CONTEXTS ((nbd_context_callback) { on_context, "context", on_free })
#define COMPLETION ((nbd_completion_callback) { on_completion, "option", on_free })

static void
settle (struct nbd_handle *h)
{
  while (nbd_aio_is_connecting (h))
    MUST (nbd_poll (h, -1));
}

int
main (int argc, char *argv[])
{
  struct nbd_handle *h = create ();

  if (argc != 2)
    return 2;
  MUST (nbd_set_opt_mode (h, true));
  MUST (nbd_connect_unix (h, argv[1]));
  SHOW (nbd_aio_is_negotiating (h));
  SHOW (nbd_aio_is_ready (h));
  SHOW (nbd_get_size (h));
  SHOW (nbd_opt_list (h, EXPORTS));
  MUST (nbd_aio_opt_list (h, EXPORTS, COMPLETION));
  settle (h);
  SHOW (nbd_add_meta_context (h, "base:"));
  SHOW (nbd_opt_list_meta_context (h, CONTEXTS));
  SHOW (nbd_clear_meta_contexts (h));
  SHOW (nbd_opt_list_meta_context (h, CONTEXTS));
  SHOW (nbd_set_export_name (h, "two"));
  SHOW (nbd_set_full_info (h, true));
  SHOW (nbd_opt_info (h));
  SHOW (nbd_get_size (h));
  SHOW_STRING (nbd_get_canonical_export_name (h));
  SHOW_STRING (nbd_get_export_description (h));
  SHOW (nbd_is_read_only (h));
  SHOW (nbd_set_export_name (h, "three"));
  SHOW (nbd_opt_info (h));
  SHOW (nbd_get_size (h));
  SHOW (nbd_opt_go (h));
  SHOW (nbd_aio_is_negotiating (h));
  MUST (nbd_aio_opt_go (h, COMPLETION));
  settle (h);
  SHOW (nbd_aio_is_negotiating (h));
  SHOW (nbd_set_export_name (h, "one"));
  SHOW (nbd_add_meta_context (h, LIBNBD_CONTEXT_BASE_ALLOCATION));
  MUST (nbd_aio_opt_go (h, COMPLETION));
  settle (h);
  SHOW (nbd_aio_is_ready (h));
  SHOW (nbd_get_size (h));
  SHOW (nbd_can_meta_context (h, LIBNBD_CONTEXT_BASE_ALLOCATION));
  SHOW (nbd_opt_list (h, EXPORTS));
  SHOW (nbd_aio_opt_list (h, EXPORTS, COMPLETION));
  MUST (nbd_shutdown (h, 0));
  nbd_close (h);

  h = create ();
  MUST (nbd_set_opt_mode (h, true));
  MUST (nbd_connect_unix (h, argv[1]));
  SHOW (nbd_opt_abort (h));
  SHOW (nbd_aio_is_closed (h));
  SHOW (nbd_opt_go (h));
  nbd_close (h);
  return 0;
}
