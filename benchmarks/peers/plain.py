"""The job with httpx and nothing else: python plain.py JOB.json."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import job as jobs


async def main() -> None:
    job = jobs.read()
    headers = {"authorization": f"Bearer {job.key}"}
    async with httpx.AsyncClient(headers=headers, timeout=60, trust_env=False) as client:

        async def ask(role: str, schema: str, prompt: str) -> Any:
            body = job.body(role, schema, prompt)
            reply = await client.post(f"{job.url}/chat/completions", json=body)
            reply.raise_for_status()
            return json.loads(reply.json()["choices"][0]["message"]["content"])

        plan = await ask("researcher", "plan", job.plan())
        questions = plan["questions"][: job.questions_max]
        notes = await asyncio.gather(
            *(ask("researcher", "notes", job.notes(question)) for question in questions)
        )
        draft = await ask("writer", "draft", job.draft(plan, notes))
        job.publish(draft, await ask("editor", "review", job.review(notes, draft)))


asyncio.run(main())
