"""The outbox: letters go once, again after failure, by one sender at a time; SMTP only over TLS; files for us alone."""

import asyncio
import ssl
import stat
from contextlib import asynccontextmanager
from datetime import timedelta
from email import message_from_bytes
from email.message import EmailMessage

import pytest
import structlog
from sqlalchemy import text

from ff_cloud.kit.crypto import Sealer
from ff_cloud.kit.secrets import Secrets
from ff_cloud.mail import letters
from ff_cloud.mail import sender as sending
from ff_cloud.mail.errors import MailRefused, MailUndelivered
from ff_cloud.mail.service import Post
from ff_cloud.mail.transport import FolderTransport, SmtpServer, SmtpTransport, is_loopback
from ff_cloud.testing.accounts import MASTER
from ff_cloud.testing.mail import Mailbox
from ff_core.testing.world import FakeWorld

TO = "alice@example.com"


@pytest.fixture
def world():
    return FakeWorld()


@pytest.fixture
def mailbox(db, world):
    return Mailbox(db, world, MASTER)


@pytest.fixture
def post(world):
    return Post(Sealer(Secrets(MASTER).sealing_key), world)


async def put(db, post, n=1):
    async with db.system_transaction() as tx:
        for index in range(n):
            await post.post(tx, TO, letters.reset(f"https://cloud/reset?token={index}"), user_id=None)


async def waiting(db):
    async with db.system_transaction() as tx:
        return await tx.scalar(text("select count(*) from outbox"))


async def test_a_letter_of_a_transaction_that_fails_is_never_sent(db, post, mailbox):
    with pytest.raises(ZeroDivisionError):
        async with db.system_transaction() as tx:
            await post.post(tx, TO, letters.password_changed(), user_id=None)
            raise ZeroDivisionError
    assert await mailbox.collect() == []


async def test_senders_at_once_send_each_letter_once(db, world, post):
    await put(db, post, 37)
    boxes = [Mailbox(db, world, MASTER) for _ in range(4)]
    await asyncio.gather(*(box.collect() for box in boxes))
    links = [letter.link for box in boxes for letter in box.letters]
    assert len(links) == len(set(links)) == 37
    assert await waiting(db) == 0


async def test_a_failed_letter_comes_later_and_is_the_same_one(db, world, post, mailbox):
    await put(db, post)
    mailbox.failures = [MailUndelivered(), MailUndelivered()]
    assert await mailbox.collect() == []
    world.advance(4.9)
    assert await mailbox.collect() == []
    assert mailbox.failures, "not tried before its time"
    world.advance(0.1)
    assert await mailbox.collect() == []
    world.advance(10)
    assert len(await mailbox.collect()) == 1
    assert await waiting(db) == 0


async def test_a_letter_that_is_refused_or_too_old_or_failed_too_often_is_given_up(db, world, post, mailbox):
    await put(db, post)
    mailbox.failures = [MailRefused()]
    assert await mailbox.collect() == []
    assert await waiting(db) == 0

    await put(db, post)
    world.advance(24 * 3600)
    assert await mailbox.collect() == []
    assert await waiting(db) == 0

    async with db.system_transaction() as tx:
        await post.post(tx, TO, letters.password_changed(), user_id=None, life=timedelta(days=30))
    mailbox.failures = [MailUndelivered()] * (sending.ATTEMPTS_MAX + 1)
    for _ in range(sending.ATTEMPTS_MAX):
        await mailbox.collect()
        world.advance(3600)
    assert len(mailbox.failures) == 1
    assert await waiting(db) == 0


async def test_a_letter_whose_sender_died_is_sent_by_another_with_the_same_id(db, world, post):
    await put(db, post)

    class Dying(Mailbox):
        async def send(self, message, link):
            await super().send(message, link)
            raise asyncio.CancelledError

    dying, other = Dying(db, world, MASTER), Mailbox(db, world, MASTER)
    with pytest.raises(asyncio.CancelledError):
        await dying.collect()
    assert await other.collect() == []
    world.advance(600)
    assert len(await other.collect()) == 1
    assert dying.messages[0].as_bytes() == other.messages[0].as_bytes()


async def test_a_text_in_the_outbox_can_not_be_moved_to_another_recipient_row(db, world, post, mailbox):
    await put(db, post, 2)
    async with db.system_transaction() as tx:
        await tx.execute(text("update outbox set content_sealed = (select content_sealed from outbox order by id limit 1)"))
    assert len(await mailbox.collect()) == 1


def letter():
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "no-reply@cloud.example", TO, "Set a new password"
    message["Message-ID"] = "<0190-abc@cloud.example>"
    message.set_content("https://cloud/reset?token=abc")
    return message


async def test_files_are_for_us_alone_and_the_link_is_told_only_where_nobody_else_listens(tmp_path):
    for tell in (False, True):
        with structlog.testing.capture_logs() as logs:
            await FolderTransport(tmp_path / "outbox", tell=tell).send(letter(), "https://cloud/reset?token=abc")
        assert ("token=abc" in str(logs)) is tell
    [file] = (tmp_path / "outbox").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert message_from_bytes(file.read_bytes())["To"] == TO
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.1", "cloud")] == [True] * 3 + [
        False
    ] * 3


@asynccontextmanager
async def smtp_server(*, rcpt="250 ok"):
    """As much SMTP as a client needs, without STARTTLS; yields its port and what it heard."""
    heard, talks = [], set()

    async def serve(reader, writer):
        talks.add(asyncio.current_task())

        def say(line):
            writer.write(line.encode() + b"\r\n")

        say("220 here")
        while line := (await reader.readline()).decode().strip():
            heard.append(line)
            word = line.split()[0].upper()
            if word == "DATA":
                say("354 go on")
                heard.append((await reader.readuntil(b"\r\n.\r\n")).decode())
                say("250 taken")
            elif word == "QUIT":
                say("221 bye")
                break
            else:
                say(rcpt if word == "RCPT" else "250 ok")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], heard
        await asyncio.wait_for(asyncio.gather(*talks, return_exceptions=True), 10)


def smtp(port):
    return SmtpServer.parse(f"smtp://127.0.0.1:{port}")


async def test_a_letter_goes_by_smtp():
    async with smtp_server() as (port, heard):
        await SmtpTransport(smtp(port)).send(letter(), None)
    assert f"RCPT TO:<{TO}>" in heard
    assert any("Message-ID: <0190-abc@cloud.example>" in each and "token=abc" in each for each in heard)


async def test_without_tls_a_server_that_is_not_on_this_machine_gets_nothing():
    assert SmtpServer.parse("smtp://u:p%40ss@mail.example.com").require_tls
    async with smtp_server() as (port, heard):
        with pytest.raises(MailUndelivered):
            await SmtpTransport(smtp(port), require_tls=True).send(letter(), None)
    assert not any(line.upper().startswith(("MAIL", "RCPT", "DATA", "AUTH")) for line in heard)


@pytest.mark.parametrize(("answer", "error"), [("550 nobody", MailRefused), ("450 later", MailUndelivered)])
async def test_what_a_server_says_of_a_recipient_decides_whether_to_try_again(answer, error):
    async with smtp_server(rcpt=answer) as (port, _):
        with pytest.raises(MailUndelivered) as caught:
            await SmtpTransport(smtp(port)).send(letter(), None)
    assert type(caught.value) is error


async def test_a_server_that_is_away_is_told_without_its_password():
    server = SmtpServer.parse("smtps://ff:s3cret%2Fword@127.0.0.1:1")
    assert (server.user, server.password, server.implicit_tls) == ("ff", "s3cret/word", True)
    with pytest.raises(MailUndelivered) as caught:
        await SmtpTransport(server, tls=ssl.create_default_context()).send(letter(), None)
    assert "s3cret" not in str(caught.value)
