"""Commands that take people out, and prove that they are gone."""

from typing import TYPE_CHECKING, Annotated

import typer

from dpdau.cli.session import ApiKeyOption, JsonOption, UrlOption, local_app, print_json, verbs
from dpdau.errors import StoreCorruptError

if TYPE_CHECKING:
    from dpdau.app.erasures import Flushed, Proof
    from dpdau.domain import ErasureReceipt

_FOUND_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.command()(erase)
    app.command()(erasure)
    app.command(name="flush-deletes")(flush_deletes)


def erase(
    user: Annotated[str, typer.Argument(help="The user id, as it is in the events.")],
    as_json: JsonOption = False,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Take out everything of one user, under every live key. What was published stays."""
    with verbs(url, api_key, reported=False) as product:
        receipt = product.erase(user)
    if as_json:
        print_json(receipt.to_json())
        return
    typer.echo(
        f"erased: {receipt.days_touched} days touched, done at {receipt.done_at.isoformat()}, "
        f"receipt {receipt.erasure_id}"
    )


def erasure(
    erasure_id: Annotated[str, typer.Argument(help="The id that `dpdau erase` printed.")],
    as_json: JsonOption = False,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Show the receipt of an erasure, worded so that it can be handed over. It names nobody."""
    with verbs(url, api_key, reported=False) as product:
        receipt = product.erasure(erasure_id)
    if as_json:
        print_json(receipt.to_json())
        return
    typer.echo(_worded(receipt))


def flush_deletes(
    verify: Annotated[
        bool, typer.Option("--verify", help="Then read every byte, and prove that it is done.")
    ] = False,
    user: Annotated[
        str | None, typer.Option("--user", help="With --verify: look for this user, erased before.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Finish every physical removal that is outstanding; needs DATA_DIR to itself."""
    from dpdau.datadir import DataDir

    if user is not None and not verify:
        raise typer.BadParameter("--user goes with --verify")
    with local_app(alone=True, reported=False) as app:
        folder = DataDir(app.settings.DATA_DIR)
        if verify:
            from dpdau.app.spark import refuse_with_lake

            refuse_with_lake(
                app.settings, "--verify", "Without --verify, the files are rewritten all the same."
            )
        flushed = app.erasures.flush(folder)
        proof = app.erasures.prove(folder, user) if verify else None
    if as_json:
        print_json({**flushed.to_json(), "proof": None if proof is None else proof.to_json()})
    else:
        _show(flushed, proof)
    if proof is not None and not proof.ok:
        raise StoreCorruptError(
            f"Expected no residue and a sound store, found {len(proof.found)} places that hold the "
            f"user and {len(proof.problems)} problems."
        )


def _show(flushed: "Flushed", proof: "Proof | None") -> None:
    """What was done and what was found, as lines."""
    ended = f", ended {', '.join(flushed.months_ended)}" if flushed.months_ended else ""
    cleared = f", removed {', '.join(flushed.leftovers)}" if flushed.leftovers else ""
    typer.echo(f"flushed: {flushed.bytes_after:,} bytes in the activity store{ended}{cleared}")
    if proof is None:
        return
    typer.echo(
        f"searched: {proof.files} files, {proof.bytes:,} bytes, {proof.rows:,} rows of "
        f"{len(proof.stores)} stores"
    )
    for one in proof.kept:
        late = "; overdue: take its days, or give the plan up" if one.overdue else ""
        typer.echo(
            f"kept: {one.pseudonyms} tombstones for {one.kept_for}, through {one.through}{late}"
        )
    if proof.keys_searched is not None:
        whole = "and the id itself" if proof.id_searched else "but not the id, which is too short"
        marks = ", ".join(proof.user_tombstones) or "no plan"
        typer.echo(
            f"user: looked for under {proof.keys_searched} live keys {whole}; found in "
            f"{len(proof.found)} places; tombstones for {marks}"
        )
    for place in proof.unread[:_FOUND_SHOWN]:
        typer.echo(f"not searched, for it is encrypted: {place}")
    for place in (*proof.found, *proof.problems)[:_FOUND_SHOWN]:
        typer.echo(f"found: {place}")


def _worded(receipt: "ErasureReceipt") -> str:
    """A receipt in sentences: what it proves, and what it does not."""
    lines = [
        f"Erasure {receipt.erasure_id}",
        f"done at        {receipt.done_at.isoformat()}",
        f"days touched   {receipt.days_touched}",
    ]
    if receipt.keys_searched is not None:
        lines.append(f"keys searched  {receipt.keys_searched}")
        lines.append(f"done by        dpdau {receipt.version}")
    cleared = "yes" if receipt.files_cleared else "not yet; run dpdau flush-deletes"
    lines.append(f"files cleared  {cleared}")
    if receipt.tombstones is not None:
        lines += [
            f"kept           one mark for {one.kept_for}, needed through {one.through}"
            for one in receipt.tombstones
        ] or ["kept           nothing"]
    lines += [
        "",
        "It says: all activity and labels of one user were taken out of the activity store, in",
        "one transaction with this receipt, under every pseudonym key that was alive"
        + (", and the" if receipt.files_cleared else "."),
        "files that held them were rewritten and deleted."
        if receipt.files_cleared
        else "Bytes that were replaced may be left in files that count no more.",
        "A mark that is kept is a pseudonym without activity: it keeps the user out of a plan that",
        "is open, and goes with the plan.",
        "It does not say who the user is, nor that published numbers were recalled (their noise",
        "protects each user), nor that backups made before, the sender's own data or free blocks",
        "of the disk were cleared.",
    ]
    return "\n".join(lines)
